"""The page that asks for a token: plain HTML, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

from fastapi.responses import HTMLResponse

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 30rem; margin: 12vh auto; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.4rem; }
input { width: 100%; box-sizing: border-box; padding: .5rem; font: inherit; margin: .3rem 0 1rem; }
button { padding: .5rem 1.2rem; font: inherit; cursor: pointer; } .error { color: #a4161a; }
code { background: #eef1f4; padding: .1rem .3rem; border-radius: 3px; }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>video-hpo: log in</title><style>{style}</style></head>
<body>
<h1>Log in to the dashboard</h1>
{error}<form method="post" action="/login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
<button type="submit">Log in</button>
</form>
<p>On the machine that runs <code>hpo serve</code>, <code>hpo token show</code> prints the token.</p>
</body>
</html>
"""


def login_page(*, status: int = 401, error: str | None = None, headers: dict[str, str] | None = None) -> HTMLResponse:
    """Make the page, with a sentence about what went wrong."""
    message = f'<p class="error" role="alert">{escape(error)}</p>\n' if error else ""
    extra = {"Content-Security-Policy": _POLICY, **(headers or {})}
    if status == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="video-hpo"'
    return HTMLResponse(_PAGE.format(style=_STYLE, error=message), status_code=status, headers=extra)
