"""A hash of what a clip shows, however its file is packed: two names of one video are found by it."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FramesHash:
    """Takes decoded frames one after the other."""

    def __init__(self) -> None:
        self._sha1 = hashlib.sha1(usedforsecurity=False)

    def update(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame, of any number of dimensions."""
        # A checksum per frame is several times as fast as hashing every byte, and collisions of all frames of two
        # different clips do not happen.
        self._sha1.update(repr((frame.shape, zlib.crc32(np.ascontiguousarray(frame).data))).encode())

    def hexdigest(self) -> str:
        """Return the hash of the frames so far."""
        return self._sha1.hexdigest()
