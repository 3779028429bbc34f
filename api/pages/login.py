"""The page that asks for a token."""

from __future__ import annotations

from fastapi.responses import HTMLResponse

from .frame import page


def login_page(*, status: int = 401, error: str | None = None, headers: dict[str, str] | None = None) -> HTMLResponse:
    """Return the page, with a sentence about what went wrong."""
    extra = dict(headers or {})
    if status == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="video-hpo"'
    return page("login.html", status=status, headers=extra, error=error)
