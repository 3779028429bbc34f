"""Scripts and styles of the pages: open, since they say nothing about this service."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hpo.errors import NotFoundError

from ..pages import assets

router = APIRouter()
_KEPT = "public, max-age=31536000, immutable"


@router.get("/assets/{name}", include_in_schema=False)
def get_asset(request: Request, name: str) -> Response:
    """Return a file of the pages; a browser may keep one whose address has the digest of its content."""
    found = assets.read(name)
    if found is None:
        raise NotFoundError(f"there is no file {name!r} of the pages")
    is_packed = "gzip" in request.headers.get("accept-encoding", "")
    headers = {"Vary": "Accept-Encoding"} | ({"Content-Encoding": "gzip"} if is_packed else {})
    if str(request.url).endswith(assets.url(name)):
        headers["Cache-Control"] = _KEPT
    return Response(found.packed if is_packed else found.content, media_type=found.media_type, headers=headers)
