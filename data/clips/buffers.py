"""Memory for batches on the host, reused: mapping fresh pages costs more time than filling them."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

from ..arrays import ByteArray

_SLACK = 1.125
"""Blocks are this factor larger than asked for, so that batches of about the same size can share them."""

_MAX_FREE_BLOCKS = 8
"""Unused blocks that are kept: as many as a loader that reads ahead holds batches."""


class BatchMemory:
    """Allocates tensors, and reuses the memory of a tensor once nothing refers to it or to a view of it."""

    def __init__(self) -> None:
        self._free: deque[ByteArray] = deque(maxlen=_MAX_FREE_BLOCKS)

    def bytes(self, count: int) -> Tensor:
        """Return an uninitialised uint8 tensor (count,)."""
        return self._take(count, np.uint8)

    def floats(self, shape: tuple[int, ...]) -> Tensor:
        """Return an uninitialised float32 tensor of that shape."""
        return self._take(math.prod(shape), np.float32).view(shape)

    def _take(self, count: int, kind: type[np.uint8 | np.float32]) -> Tensor:
        n_bytes = count * np.dtype(kind).itemsize
        try:
            block = self._free.popleft()
        except IndexError:
            block = np.empty(0, np.uint8)
        if len(block) < n_bytes:
            block = np.empty(math.ceil(n_bytes * _SLACK / 64) * 64, np.uint8)
        # A tensor keeps this view alive, and so do all views of the tensor.
        view = block[:n_bytes].view(kind)
        weakref.finalize(view, self._free.append, block).atexit = False
        return torch.from_numpy(view)
