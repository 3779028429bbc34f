"""A hash of the decoded frames of a clip, which finds two files that hold the same video."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..arrays import ByteArray


class FramesHash:
    """Hashes decoded frames one after the other."""

    def __init__(self) -> None:
        self._sha1 = hashlib.sha1(usedforsecurity=False)

    def update(self, frame: ByteArray) -> None:
        """Add a frame, of any number of dimensions."""
        # A checksum per frame is several times as fast as hashing every byte, and two different clips will not
        # collide in all frames.
        self._sha1.update(repr((frame.shape, zlib.crc32(np.ascontiguousarray(frame).data))).encode())

    def hexdigest(self) -> str:
        """Return the hash of the frames so far."""
        return self._sha1.hexdigest()
