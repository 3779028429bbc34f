"""Frames as luma and half-size chroma planes (I420): half the bytes of RGB, converted to RGB when a crop is read.

Colours follow ITU-R BT.601 in its video range, as in the videos. Sides are made even by repeating the last row and
column, which are cut off again when reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np

from .protocol import Box
from .shards import ShardStore

if TYPE_CHECKING:
    from ..arrays import ByteArray, Indices, Sizes

    Planes = tuple[ByteArray, ByteArray, ByteArray]


class PlanarStore(ShardStore):
    """Frames as I420, mapped into memory."""

    varying: ClassVar[bool] = False

    def read_into(self, id_: str, indices: Indices, box: Box, target: ByteArray) -> None:
        """Copy `box` of the frames `indices` into `target` (T, box.height, box.width, 3)."""
        _, height, width = self.shape(id_)
        row, size = self._row(id_), frame_bytes(height, width, 3)
        shard, start = self._shard(row), self.manifest.offset[row]
        for t, index in enumerate(indices):
            at = start + int(index) * size
            crop_to_rgb(split_planes(shard[at : at + size], height, width), box, target[t])

    def frame_sizes(self, id_: str) -> Sizes:
        """Return the bytes of each frame of a clip, which are equal."""
        n_frames, height, width = self.shape(id_)
        return np.full(n_frames, frame_bytes(height, width, self.channels), np.uint32)


def even(side: int) -> int:
    """Return `side` rounded up to an even number."""
    return side + side % 2


def frame_bytes(height: int, width: int, channels: int) -> int:
    """Return the bytes of one frame: one and a half for each pixel of the even size."""
    del channels
    return even(height) * even(width) * 3 // 2


def to_planes(frame: ByteArray) -> ByteArray:
    """Return an RGB frame (H, W, 3) as I420 (3/2 H, W), H and W made even."""
    height, width, _ = frame.shape
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8)
    # OpenCV takes the chroma of one pixel in four; the mean of the four is 3 dB better.
    rows, columns, _ = frame.shape
    means = cv2.resize(frame, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
    blocks = means.repeat(2, axis=0).repeat(2, axis=1)
    planes[rows:] = cv2.cvtColor(blocks, cv2.COLOR_RGB2YUV_I420)[rows:]
    return planes


def encode(frames: Iterable[ByteArray]) -> Iterator[bytes]:
    """Yield the bytes of each RGB frame (H, W, 3) as I420."""
    for frame in frames:
        yield to_planes(frame).tobytes()


def split_planes(planes: ByteArray, height: int, width: int) -> Planes:
    """Return the luma (H, W) and the chroma planes (H/2, W/2) of an I420 frame as views; H and W made even."""
    height, width = even(height), even(width)
    quarter = height * width // 4
    chroma = (height // 2, width // 2)
    return (
        planes[: 4 * quarter].reshape(height, width),
        planes[4 * quarter : 5 * quarter].reshape(chroma),
        planes[5 * quarter :].reshape(chroma),
    )


def crop_to_rgb(planes: Planes, box: Box, target: ByteArray) -> None:
    """Write `box` of a frame's planes as RGB into `target` (box.height, box.width, 3)."""
    top, left = box.top // 2, box.left // 2
    bottom, right = even(box.top + box.height) // 2, even(box.left + box.width) // 2
    luma, u, v = planes
    parts = (
        luma[2 * top : 2 * bottom, 2 * left : 2 * right],
        u[top:bottom, left:right],
        v[top:bottom, left:right],
    )
    packed = np.concatenate([part.ravel() for part in parts]).reshape(3 * (bottom - top), 2 * (right - left))
    rgb = cv2.cvtColor(packed, cv2.COLOR_YUV2RGB_I420)
    vertical, horizontal = box.top - 2 * top, box.left - 2 * left
    target[:] = rgb[vertical : vertical + box.height, horizontal : horizontal + box.width]
