"""The page that asks for a token."""

from __future__ import annotations

from html import escape
from typing import Final

from fastapi.responses import HTMLResponse

from .frame import page

_STYLE: Final = """
:root { --text: #1c2733; --error: #a4161a; --code: #eef1f4; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e8ee; --error: #ff8a85; --code: #2a323c; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 30rem; margin: 12vh auto; padding: 0 1rem; color: var(--text); }
h1 { font-size: 1.4rem; }
input { width: 100%; box-sizing: border-box; padding: .5rem; font: inherit; margin: .3rem 0 1rem; }
button { padding: .5rem 1.2rem; font: inherit; cursor: pointer; } .error { color: var(--error); }
code { background: var(--code); padding: .1rem .3rem; border-radius: 3px; }
"""
_BODY: Final = """<h1>Log in to the dashboard</h1>
{error}<form method="post" action="/login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
<button type="submit">Log in</button>
</form>
<p>On the machine that runs <code>hpo serve</code>, <code>hpo token show</code> prints the token.</p>"""


def login_page(*, status: int = 401, error: str | None = None, headers: dict[str, str] | None = None) -> HTMLResponse:
    """Return the page, with a sentence about what went wrong."""
    message = f'<p class="error" role="alert">{escape(error)}</p>\n' if error else ""
    extra = dict(headers or {})
    if status == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="video-hpo"'
    return page(_BODY.format(error=message), title="log in", style=_STYLE, status=status, headers=extra)
