"""The temporal adaptive module: a kernel over time that depends on the clip.

Source: Liu et al., TAM: Temporal Adaptive Module for Video Recognition, ICCV 2021, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .temporal_modules import TemporalModule, as_clips, shift

_KERNEL = 3


class AdaptiveAggregation(TemporalModule):
    """Weigh every channel of every image, then convolve each channel of a clip over time with a kernel of its own.

    The weights come from a branch that looks at neighbouring images (``L``), the kernels from one that looks at the
    whole clip, channel by channel (``G``). That one is made for clips of `segments` images; the averages of other clips
    are interpolated to that length. Names of parameters are the authors'.
    """

    def __init__(self, channels: int, segments: int) -> None:
        super().__init__()
        self.segments = segments
        self.G = nn.Sequential(
            nn.Linear(segments, 2 * segments, bias=False),
            nn.BatchNorm1d(2 * segments),
            nn.ReLU(inplace=True),
            nn.Linear(2 * segments, _KERNEL, bias=False),
            nn.Softmax(-1),
        )
        inner = max(channels // 4, 1)
        self.L = nn.Sequential(
            nn.Conv1d(channels, inner, _KERNEL, padding=_KERNEL // 2, bias=False),
            nn.BatchNorm1d(inner),
            nn.ReLU(inplace=True),
            nn.Conv1d(inner, channels, 1, bias=False),
            nn.Sigmoid(),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.001)

    def forward(self, images: Tensor, length: int) -> Tensor:
        """Return the convolved images, with zeros beyond the ends of the clip."""
        clips = as_clips(images, length)
        averages = clips.mean((3, 4)).transpose(1, 2)
        seen = averages
        if length != self.segments:
            seen = F.interpolate(averages, self.segments, mode="linear", align_corners=False)
        # (N, 1, C, 1, 1) for each of the three neighbours.
        kernels = self.G(seen.flatten(0, 1)).view(*averages.shape[:2], _KERNEL).movedim(2, 0)
        weights = self.L(averages).transpose(1, 2)[..., None, None]
        weighted = clips * weights
        parts = [
            shift(weighted, _KERNEL // 2 - index) * kernel[:, None, :, None, None]
            for index, kernel in enumerate(kernels)
        ]
        y: Tensor = torch.stack(parts).sum(0)
        return y.flatten(0, 1)
