"""A 3x3x3 max pool with stride 1 that is fast on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DenseMaxPool3d(nn.MaxPool3d):
    """The same as :class:`torch.nn.MaxPool3d` with a 3x3x3 window, stride 1 and padding 1.

    On a CPU, PyTorch computes the maxima of many channels at once only if channels are last in memory. Including both
    conversions, this was measured to be 4 to 6 times as fast, forward and backward.
    """

    def __init__(self) -> None:
        super().__init__(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, H, W) to the same shape."""
        if x.device.type != "cpu" or not x.is_contiguous():
            y: Tensor = super().forward(x)
            return y
        pooled: Tensor = super().forward(x.contiguous(memory_format=torch.channels_last_3d))
        return pooled.contiguous()
