"""The description of the API, drawn by Swagger UI from files of our own."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from ..pages.frame import POLICY, page

router = APIRouter()
_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # it writes styles into its elements


@router.get("/docs", include_in_schema=False)
def show_docs() -> HTMLResponse:
    """Show every route, and let a person try them with a token."""
    return page("docs.html", policy=_POLICY)
