"""What every method of optical flow is: a function of two frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FlowMethod = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]
    """Gives the field (H, W, 2) that leads from one RGB frame (H, W, 3) to the next."""


def widened(frame: NDArray[np.uint8], least: int, *, multiple: int = 1) -> NDArray[np.uint8]:
    """Return a frame whose sides are at least `least` and multiples of `multiple`, its last row and column repeated."""
    missing = [max(least, -(-side // multiple) * multiple) - side for side in frame.shape[:2]]
    if not any(missing):
        return frame
    return np.pad(frame, [(0, missing[0]), (0, missing[1]), (0, 0)][: frame.ndim], mode="edge")
