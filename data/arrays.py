"""Types of the arrays in this package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ByteArray = NDArray[np.uint8]
"""Frames, flow fields or encoded images."""
FloatArray = NDArray[np.float32]
Indices = NDArray[np.intp]
Sizes = NDArray[np.uint32]
"""Bytes of each frame."""
