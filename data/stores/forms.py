"""The forms of prepared frames, by their names in specifications."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CacheError
from . import jpeg, planar, raw, tinyvideo
from .manifest import Manifest
from .shards import ShardStore

if TYPE_CHECKING:
    from ..arrays import ByteArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """One form of prepared frames: how it is written and read."""

    store: type[ShardStore]
    encode: Callable[[Iterable[ByteArray]], Iterator[bytes]]
    """Yields the bytes of each frame."""
    frame_bytes: Callable[[int, int, int], int] | None = None
    """Returns the bytes of a frame by its height, width and channels; None if they depend on the picture."""
    flow: bool = False
    """Whether the form can hold flow."""


FORMS = {
    "raw": Form(store=raw.RawStore, encode=raw.encode, frame_bytes=raw.frame_bytes, flow=True),
    "i420": Form(store=planar.PlanarStore, encode=planar.encode, frame_bytes=planar.frame_bytes),
    "jpeg": Form(store=jpeg.JpegStore, encode=jpeg.encode, flow=True),
    "lmdb": Form(store=jpeg.DatabaseStore, encode=jpeg.encode),
    "tinyvideo": Form(store=tinyvideo.TinyVideoStore, encode=tinyvideo.encode),
}


def open_store(folder: Path) -> ShardStore:
    """Return the store of the finished cache in `folder`.

    Raises:
        CacheError: there is none, or its files were changed.
    """
    manifest = Manifest.load(folder)
    if manifest.form not in FORMS:
        raise CacheError(f"{folder} is of the unknown form {manifest.form!r}; delete it")
    return FORMS[manifest.form].store.open(folder, manifest)
