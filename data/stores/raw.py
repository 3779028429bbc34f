"""Frames as plain bytes, which need no decoding when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .protocol import Box, copy_box
from .shards import ShardStore

if TYPE_CHECKING:
    from ..arrays import ByteArray, Indices, Sizes


class RawStore(ShardStore):
    """Frames (H, W, C) as uint8, mapped into memory."""

    varying: ClassVar[bool] = False

    def read_into(self, id_: str, indices: Indices, box: Box, target: ByteArray) -> None:
        """Copy `box` of the frames `indices` into `target` (T, box.height, box.width, channels)."""
        copy_box(self.video(id_), indices, box, target)

    def video(self, id_: str) -> ByteArray:
        """Return all frames of a clip as a read-only view (T, H, W, channels) of the shared file."""
        shape = (*self.shape(id_), self.channels)
        row = self._row(id_)
        start = self.manifest.offset[row]
        return self._shard(row)[start : start + frame_bytes(shape[1], shape[2], self.channels) * shape[0]].reshape(
            shape
        )

    def frame_sizes(self, id_: str) -> Sizes:
        """Return the bytes of each frame of a clip, which are equal."""
        n_frames, height, width = self.shape(id_)
        return np.full(n_frames, frame_bytes(height, width, self.channels), np.uint32)


def frame_bytes(height: int, width: int, channels: int) -> int:
    """Return the bytes of one frame."""
    return height * width * channels


def encode(frames: Iterable[ByteArray]) -> Iterator[bytes]:
    """Yield the bytes of each frame (H, W, C)."""
    for frame in frames:
        yield frame.tobytes()
