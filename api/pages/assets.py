"""Scripts, styles and pictures of the pages. Their address has a digest of the content, so browsers may keep them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "assets"
PREFIX: Final = "/assets/"
_FILES: Final = {
    "charts.js": "charts.js",
    "confusion.js": "confusion.js",
    "dashboard.css": "dashboard.css",
    "dashboard.js": "dashboard.js",
    "docs.js": "docs.js",
    "icon.svg": "icon.svg",
    "live.js": "live.js",
    "new.js": "new.js",
    "style.css": "style.css",
    "swagger-ui.css": "vendor/swagger-ui.css",
    "swagger-ui.js": "vendor/swagger-ui.js.gz",
    "table.js": "table.js",
    "uplot.css": "vendor/uplot.css",
    "uplot.js": "vendor/uplot.js",
}
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file of the pages."""

    content: bytes
    media_type: str
    packed: bytes
    """The content, compressed with gzip."""


def names() -> frozenset[str]:
    """Return the names of all files."""
    return frozenset(_FILES)


@cache
def read(name: str) -> Asset | None:
    """Return a file by its name; None where there is none."""
    if name not in _FILES:
        return None
    path = FOLDER / _FILES[name]
    stored = path.read_bytes()
    content, packed = (gzip.decompress(stored), stored) if path.suffix == ".gz" else (stored, gzip.compress(stored))
    return Asset(content=content, packed=packed, media_type=_TYPES[Path(name).suffix])


@cache
def url(name: str) -> str:
    """Return the address of a file, which changes with its content."""
    return f"{PREFIX}{name}?v={hashlib.sha256((FOLDER / _FILES[name]).read_bytes()).hexdigest()[:12]}"
