"""Small trees of empty files, and of real frames where a test decodes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from data.index.listing import Listing
from data.index.records import ListedClip, Subset


def lay_out(root: Path, files: Mapping[str, str] | None = None, empty: Iterable[str] = ()) -> Path:
    """Return `root` after writing `files` with their text and `empty` ones below it."""
    for name, text in [*(files or {}).items(), *((name, "") for name in empty)]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def frames(folder: str, count: int = 3, name: str = "%05d.jpg", first: int = 1) -> list[str]:
    """Return the paths of a folder of frames."""
    return [f"{folder}/{name % number}" for number in range(first, first + count)]


def by_id(listing: Listing) -> dict[str, ListedClip]:
    return {clip.id: clip for clip in listing.clips}


def sides(listing: Listing, split: int = 1) -> dict[str, Subset | None]:
    return {clip.id: clip.subset(split) for clip in listing.clips}
