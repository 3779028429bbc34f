"""What all pages share: plain HTML, no script, nothing from elsewhere, light or dark as the browser asks for."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from fastapi.responses import HTMLResponse

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">{refresh}
<title>video-hpo: {title}</title><style>{style}</style></head>
<body>
{body}
</body>
</html>
"""


def page(
    body: str,
    *,
    title: str,
    style: str,
    refresh_seconds: int | None = None,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> HTMLResponse:
    """Return a page of this HTML, which the browser loads again after `refresh_seconds`, and its policy."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    refresh = "" if refresh_seconds is None else f'<meta http-equiv="refresh" content="{refresh_seconds}">'
    html = _PAGE.format(body=body, title=escape(title), style=style, refresh=refresh)
    return HTMLResponse(html, status_code=status, headers={"Content-Security-Policy": policy, **(headers or {})})
