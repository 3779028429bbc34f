"""What every cache of prepared frames offers, whatever form the frames are kept in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


class FrameStore(Protocol):
    """Random access to the prepared frames of every clip; cheap to open, safe to pickle, to share over a fork and to
    read from several threads at once."""

    @property
    def channels(self) -> int:
        """3 for RGB; 2 for flow: x and y, as `round((pixels / bound + 1) * 127.5)`."""
        ...

    def shape(self, id_: str) -> tuple[int, int, int]:
        """Return (frames, height, width) of a clip; of flow, one frame fewer than of RGB.

        Raises:
            CacheError: the store holds no such clip.
        """
        ...

    def read_into(self, id_: str, indices: NDArray[np.intp], box: Box, target: NDArray[np.uint8]) -> None:
        """Copy `box` of the frames `indices` into `target` (T, box.height, box.width, channels).

        Raises:
            CacheError: the store holds no such clip, or is damaged.
        """
        ...

    def __contains__(self, id_: object) -> bool: ...

    def __len__(self) -> int: ...


def copy_box(frames: NDArray[np.uint8], indices: NDArray[np.intp], box: Box, target: NDArray[np.uint8]) -> None:
    """Copy `box` of the frames `indices` of a video (F, H, W, C) that lies in one piece into `target`.

    Frames in equal steps, as dense clips have them, are one copy whose items are whole lines of the box: a third
    faster than frame after frame.
    """
    steps = indices[1:] - indices[:-1]
    step = int(steps[0]) if len(steps) else 1
    if step < 1 or not target.flags.c_contiguous or not (steps == step).all():
        vertical, horizontal = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
        for t, index in enumerate(indices):
            target[t] = frames[index, vertical, horizontal]
        return
    _, height, width, channels = frames.shape
    line, below = width * channels, width * channels * height
    item = np.dtype((np.void, box.width * channels))
    shape = (len(indices), box.height)
    start = int(indices[0]) * below + box.top * line + box.left * channels
    source = np.ndarray(shape, item, buffer=frames.data, offset=start, strides=(step * below, line))
    np.copyto(np.ndarray(shape, item, buffer=target.data), source)
