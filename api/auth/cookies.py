"""The cookie that holds the session of a browser."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope


def cookie_name(scope: Scope) -> str:
    """Return the name of the cookie that holds the session.

    A browser sends a host's cookies to all of its ports. With the port in the name, two services on one machine keep a
    session each.
    """
    try:
        port = urlsplit("//" + Headers(scope=scope).get("host", "")).port
    except ValueError:
        port = None
    return f"hpo_session_{port or (443 if scope['scheme'] == 'https' else 80)}"


def session_of(scope: Scope) -> str | None:
    """Return the session token of the request's cookie."""
    name = cookie_name(scope)
    try:
        cookie = SimpleCookie(Headers(scope=scope).get("cookie", ""))
    except CookieError:
        return None
    return cookie[name].value if name in cookie else None
