"""Who may do what: the gate before every route, scopes, logging in, the first token."""

from .secret import bootstrap_token, create_login_link, load_secret, take_tokens

__all__ = ["bootstrap_token", "create_login_link", "load_secret", "take_tokens"]
