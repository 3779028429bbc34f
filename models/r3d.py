"""Residual networks of 3-D, mixed, and (2+1)-D convolutions: R3D, MC3, R(2+1)D.

Source: Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018.
Names of parameters are those of torchvision's ``VideoResNet``, so that its weights load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .card import ModelSettings
from .video_model import VideoModel, init_convolutions, make_classifier

_DEPTHS = {18: (2, 2, 2, 2)}
# Of the authors' network and of torchvision's; the formula would give 83.
_STEM_MIDPLANES = 45


@dataclass(frozen=True, kw_only=True, slots=True)
class R3DConfig:
    """What one of these networks is made of; accepted values stand in its card."""

    convolution: str
    """``"r3d"``: 3x3x3; ``"mc3"``: that in the first stage, then 1x3x3; ``"r2plus1d"``: split."""
    depth: int
    width: int
    zero_init: bool
    midplanes: str = "torchvision"
    """R(2+1)D only: ``"torchvision"`` or ``"paper"``; see :func:`paper_midplanes`."""


def paper_midplanes(in_channels: int, out_channels: int) -> int:
    """Return M of section 3.5: the split 3x3x3 then has about as many weights as the full one."""
    return (27 * in_channels * out_channels) // (9 * in_channels + 3 * out_channels)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, kind: str, midplanes: str) -> None:
        super().__init__()
        # torchvision sizes both convolutions by the first one; the paper each by itself.
        mid1 = paper_midplanes(in_channels, channels)
        mid2 = mid1 if midplanes == "torchvision" else paper_midplanes(channels, channels)
        self.conv1 = nn.Sequential(
            _conv(kind, in_channels, channels, midplanes=mid1, stride=stride),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(_conv(kind, channels, channels, midplanes=mid2), nn.BatchNorm3d(channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            strides = (1 if kind == "spatial" else stride, stride, stride)
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, channels, 1, stride=strides, bias=False),
                nn.BatchNorm3d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to (N, channels, T', H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(self.conv2(self.conv1(x)) + shortcut)
        return y

    def zero_init(self) -> None:
        """Start as the shortcut alone."""
        norm = self.conv2[1]
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.zeros_(norm.weight)


class R3D(VideoModel):
    """The network, with any of its three kinds of convolution.

    Takes any number of frames; time is halved with space in stages two to four, except in MC3.
    """

    classifier_name = "fc"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = R3DConfig(**arguments)
        self.stem = _stem(settings.in_channels, config)
        widths = [config.width * 2**index for index in range(4)]
        first, *later = _kinds(config.convolution)
        self.layer1 = _stage(config.width, widths[0], 1, first, config, index=0)
        self.layer2 = _stage(widths[0], widths[1], 2, later[0], config, index=1)
        self.layer3 = _stage(widths[1], widths[2], 2, later[1], config, index=2)
        self.layer4 = _stage(widths[2], widths[3], 2, later[2], config, index=3)
        self.fc = make_classifier(widths[3], settings.num_classes)
        init_convolutions(self)
        if config.zero_init:
            for module in self.modules():
                if isinstance(module, BasicBlock):
                    module.zero_init()

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the last maps' averages over time and space."""
        x: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(clip)))))
        return x.mean((2, 3, 4))


def _kinds(convolution: str) -> tuple[str, str, str, str]:
    """Return the kind of convolution in each of the four stages."""
    if convolution == "mc3":
        return ("full", "spatial", "spatial", "spatial")
    kind = {"r3d": "full", "r2plus1d": "split"}[convolution]
    return (kind, kind, kind, kind)


def _stage(in_channels: int, channels: int, stride: int, kind: str, config: R3DConfig, *, index: int) -> nn.Sequential:
    blocks = [
        BasicBlock(
            in_channels if number == 0 else channels,
            channels,
            stride=stride if number == 0 else 1,
            kind=kind,
            midplanes=config.midplanes,
        )
        for number in range(_DEPTHS[config.depth][index])
    ]
    return nn.Sequential(*blocks)


def _stem(in_channels: int, config: R3DConfig) -> nn.Sequential:
    width = config.width
    if config.convolution != "r2plus1d":
        return nn.Sequential(
            nn.Conv3d(in_channels, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
    # A narrower net keeps the proportion.
    mid = max(_STEM_MIDPLANES * width // 64, 1)
    return nn.Sequential(
        nn.Conv3d(in_channels, mid, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
        nn.BatchNorm3d(mid),
        nn.ReLU(inplace=True),
        nn.Conv3d(mid, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def _conv(kind: str, in_channels: int, out_channels: int, *, midplanes: int, stride: int = 1) -> nn.Module:
    """Return a convolution over 3x3x3 (full), 1x3x3 (spatial), or 1x3x3 then 3x1x1 (split)."""
    if kind == "full":
        return nn.Conv3d(in_channels, out_channels, 3, stride, 1, bias=False)
    if kind == "spatial":
        return nn.Conv3d(in_channels, out_channels, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
    return nn.Sequential(
        nn.Conv3d(in_channels, midplanes, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        nn.BatchNorm3d(midplanes),
        nn.ReLU(inplace=True),
        nn.Conv3d(midplanes, out_channels, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )
