"""The forms of prepared frames, by the names that a specification gives."""

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
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """One way to keep frames."""

    store: type[ShardStore]
    encode: Callable[[Iterable[NDArray[np.uint8]]], Iterator[bytes]]
    """Gives the bytes of each frame, one for one."""
    frame_bytes: Callable[[int, int, int], int] | None = None
    """Bytes of a frame by its height, width and channels; None where that depends on the picture."""
    flow: bool = False
    """Whether it can keep flow."""


FORMS = {
    "raw": Form(store=raw.RawStore, encode=raw.encode, frame_bytes=raw.frame_bytes, flow=True),
    "i420": Form(store=planar.PlanarStore, encode=planar.encode, frame_bytes=planar.frame_bytes),
    "jpeg": Form(store=jpeg.JpegStore, encode=jpeg.encode, flow=True),
    "lmdb": Form(store=jpeg.DatabaseStore, encode=jpeg.encode),
    "tinyvideo": Form(store=tinyvideo.TinyVideoStore, encode=tinyvideo.encode),
}


def open_store(folder: Path) -> ShardStore:
    """Open the finished cache in `folder`.

    Raises:
        CacheError: it is not there, or not as it was when it was finished.
    """
    manifest = Manifest.load(folder)
    if manifest.form not in FORMS:
        raise CacheError(f"{folder} is of the unknown form {manifest.form!r}; delete it")
    return FORMS[manifest.form].store.open(folder, manifest)
