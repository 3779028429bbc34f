"""Stores of frames in shards, clip after clip: the base class of all forms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..errors import CacheError, DamagedCacheError
from .manifest import Manifest
from .protocol import Box

if TYPE_CHECKING:
    from ..arrays import ByteArray, Indices, Sizes

SIZES_FILE = "sizes.npy"


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.bin"


class ShardStore:
    """Read access to prepared frames: see `FrameStore` for what it promises."""

    varying: ClassVar[bool] = True
    """Whether frames have different numbers of bytes, which a table then lists."""

    def __init__(self, folder: Path, manifest: Manifest, sizes: Sizes | None = None) -> None:
        """Read the frames in `folder`; `sizes` are the bytes of each of them where the cache is not finished."""
        self.folder = folder
        self.manifest = manifest
        self._shards: dict[int, ByteArray] = {}
        self._sizes = sizes

    @classmethod
    def open(cls, folder: Path, manifest: Manifest) -> Self:
        """Return the store of a finished cache.

        Raises:
            DamagedCacheError: its files are missing or have another size.
        """
        for number, size in enumerate(manifest.shard_bytes):
            shard = folder / shard_name(number)
            if not shard.is_file() or shard.stat().st_size != size:
                raise DamagedCacheError(f"{shard} was changed after it was built: delete {folder}")
        if cls.varying and not (folder / SIZES_FILE).is_file():
            raise DamagedCacheError(f"{folder / SIZES_FILE} is missing: delete {folder}")
        return cls(folder, manifest)

    @property
    def channels(self) -> int:
        """3 for RGB, 2 for flow."""
        return self.manifest.channels

    @property
    def n_bytes(self) -> int:
        """Bytes of all stored frames."""
        return sum(self.manifest.shard_bytes)

    def shape(self, id_: str) -> tuple[int, int, int]:
        """Return (frames, height, width) of a clip."""
        row, table = self._row(id_), self.manifest
        return table.n_frames[row], table.height[row], table.width[row]

    def read_into(self, id_: str, indices: Indices, box: Box, target: ByteArray) -> None:
        """Copy `box` of the frames `indices` into `target` (T, box.height, box.width, channels)."""
        raise NotImplementedError

    def frame_sizes(self, id_: str) -> Sizes:
        """Return the bytes of each frame of a clip."""
        row, table = self._row(id_), self.manifest
        if self._sizes is None:
            self._sizes = np.load(self.folder / SIZES_FILE, mmap_mode="r").view(np.ndarray)
        return self._sizes[table.first[row] : table.first[row] + table.n_frames[row]]

    def encoded(self, id_: str) -> Iterator[bytes]:
        """Yield the bytes of each frame of a clip as they are stored."""
        shard, ends = self._records(id_)
        for start, end in pairwise(ends):
            yield shard[start:end].tobytes()

    def video(self, id_: str) -> ByteArray:
        """Return all frames of a clip, (T, H, W, channels)."""
        n_frames, height, width = self.shape(id_)
        target = np.empty((n_frames, height, width, self.channels), np.uint8)
        self.read_into(id_, np.arange(n_frames), Box(top=0, left=0, height=height, width=width), target)
        return target

    def __len__(self) -> int:
        return len(self.manifest.ids)

    def __contains__(self, id_: object) -> bool:
        return id_ in self.manifest.rows

    def __getstate__(self) -> dict[str, Any]:
        # An open memory map would be pickled as the bytes of its whole file.
        return {"folder": self.folder, "manifest": self.manifest, "_shards": {}, "_sizes": None}

    def _row(self, id_: str) -> int:
        try:
            return self.manifest.rows[id_]
        except KeyError:
            raise CacheError(f"{self.folder} does not contain clip {id_!r}: prepare it again") from None

    def _shard(self, row: int) -> ByteArray:
        """Return all bytes of the shard that holds a clip, as a read-only view of the file."""
        number = self.manifest.shard[row]
        shard = self._shards.get(number)
        if shard is None:
            shard = np.memmap(self.folder / shard_name(number), np.uint8, mode="r").view(np.ndarray)
            self._shards[number] = shard
        return shard

    def _records(self, id_: str) -> tuple[ByteArray, list[int]]:
        """Return the shard of a clip, the offset of each of its frames there, and that of the end of the last."""
        row, sizes = self._row(id_), self.frame_sizes(id_)
        offset = self.manifest.offset[row]
        ends = offset + np.cumsum(sizes, dtype=np.int64)
        return self._shard(row), [offset, *ends.tolist()]
