"""Memory for batches on the host, used again and again: fresh pages cost more than what is written to them."""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLACK = 1.125
"""What is allocated is a little larger than asked for, so that batches of about the same size can share it."""

_MOST_FREE = 8
"""Blocks that are kept while nobody needs them: as many as a loader that reads ahead has in hand."""


class BatchMemory:
    """Gives out tensors, and what they lay in once more when nobody holds them or a view of them any longer."""

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=_MOST_FREE)

    def bytes(self, count: int) -> Tensor:
        """Return uint8 (count,) with anything in it."""
        return self._take(count, np.uint8)

    def floats(self, shape: tuple[int, ...]) -> Tensor:
        """Return float32 of that shape with anything in it."""
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
