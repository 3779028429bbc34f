"""The type of a method of optical flow, a function of two frames, and padding that methods share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..arrays import ByteArray, FloatArray

    FlowMethod = Callable[[ByteArray, ByteArray], FloatArray]
    """Maps two RGB frames (H, W, 3) to the field (H, W, 2) from the first to the second."""


def widened(frame: ByteArray, least: int, *, multiple: int = 1) -> ByteArray:
    """Return a frame padded so that its sides are at least `least` and multiples of `multiple`, repeating its edge."""
    missing = [max(least, -(-side // multiple) * multiple) - side for side in frame.shape[:2]]
    if not any(missing):
        return frame
    return np.pad(frame, [(0, missing[0]), (0, missing[1]), (0, 0)][: frame.ndim], mode="edge")
