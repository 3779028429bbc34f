"""Prepared frames in the form that suits the size of the set and the disk.

    form        one frame is                                    read by
    raw         H x W x 3 bytes (flow: H x W x 2)               mapping the file
    i420        H x W x 3/2 bytes                               converting the crop
    jpeg        a JPEG image                                    decoding the image
    lmdb        the same in an LMDB that others can read too    decoding the image
    tinyvideo   a packet of a small MPEG-4 video                decoding from the key frame before it

All are a folder with `manifest.json` (`manifest.py`) and, but for `lmdb`, shards of clips (`shards.py`); all are built
by `build.py` and read behind `data.store.FrameStore`.
"""

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
