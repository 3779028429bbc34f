"""X3D: a small image network that is expanded, one axis at a time, to a small video network.

Source: Feichtenhofer, X3D: Expanding Architectures for Efficient Video Recognition, CVPR 2020, tables 1 to 3.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.temporal_conv import TemporalConv3d
from ..video_model import FullyConvolutionalModel, init_convolutions, make_classifier

_BLOCKS = (1, 2, 5, 3)
_BOTTLENECK = 2.25
_GATE_SHARE = 1 / 16


@dataclass(frozen=True, kw_only=True, slots=True)
class X3DConfig:
    """The configuration of the network; its card lists the accepted values."""

    depth_tenths: int
    """Ten times the depth factor, by which the numbers of blocks of the stages, 1, 2, 5 and 3, are multiplied."""
    width: int
    """Channels of the stem and of the first stage; they double from stage to stage."""
    head_width: int
    """Length of the feature vector."""
    zero_init: bool
    shortcut_norm: bool = False
    """A norm in the shortcut that only strides, too, as in PySlowFast."""
    project_norm: bool = False
    """A norm between the last convolution and its ReLU: ``BN_LIN5`` of PySlowFast."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        # Computed in integers, because 2.2 times 5 in floating point is more than 11.
        return tuple(-(-count * self.depth_tenths // 10) for count in _BLOCKS)


def round_to_eights(channels: float) -> int:
    """Return `channels` rounded to a multiple of 8, at least 8 and at least nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' averages through a narrow layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = round_to_eights(channels * _GATE_SHARE)
        self.squeeze = nn.Conv3d(channels, narrow, 1)
        self.excite = nn.Conv3d(narrow, channels, 1)
        self.relu = nn.ReLU(inplace=True)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, H, W) to the same shape."""
        scale = self.sigmoid(self.excite(self.relu(self.squeeze(x.mean((2, 3, 4), keepdim=True)))))
        y: Tensor = x * scale
        return y


class Block(nn.Module):
    """A widening 1x1x1, a depthwise 3x3x3 and a narrowing 1x1x1 convolution; time is never strided."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, gated: bool, shortcut_norm: bool) -> None:
        super().__init__()
        inner = int(_BOTTLENECK * out_channels)
        self.branch = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv_a=nn.Conv3d(in_channels, inner, 1, bias=False),
                norm_a=nn.BatchNorm3d(inner),
                relu_a=nn.ReLU(inplace=True),
                conv_b=nn.Conv3d(inner, inner, 3, (1, stride, stride), 1, groups=inner, bias=False),
                norm_b=nn.BatchNorm3d(inner),
                gate=SqueezeExcite(inner) if gated else nn.Identity(),
                swish_b=nn.SiLU(inplace=True),
                conv_c=nn.Conv3d(inner, out_channels, 1, bias=False),
                norm_c=nn.BatchNorm3d(out_channels),
            )
        )
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm=shortcut_norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to (N, out, T, H / stride, W / stride)."""
        y: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return y

    def zero_init(self) -> None:
        """Initialise the block so that it computes the shortcut alone."""
        norm = self.branch.norm_c
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.zeros_(norm.weight)


class X3D(FullyConvolutionalModel):
    """The network; it takes any number of frames and never reduces it."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = X3DConfig(**arguments)
        channels = config.width
        self.stem = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv_space=nn.Conv3d(settings.in_channels, channels, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
                conv_time=TemporalConv3d(channels, channels, 5, groups=channels),
                norm=nn.BatchNorm3d(channels),
                relu=nn.ReLU(inplace=True),
            )
        )
        stages = []
        for index, count in enumerate(config.blocks):
            planes = config.width * 2**index
            # The first, third, ... block of a stage are gated.
            blocks = [
                Block(
                    channels if number == 0 else planes,
                    planes,
                    stride=2 if number == 0 else 1,
                    gated=number % 2 == 0,
                    shortcut_norm=config.shortcut_norm,
                )
                for number in range(count)
            ]
            stages.append(nn.Sequential(*blocks))
            channels = planes
        self.stages = nn.Sequential(*stages)
        inner = int(_BOTTLENECK * channels)
        self.widen = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv=nn.Conv3d(channels, inner, 1, bias=False),
                norm=nn.BatchNorm3d(inner),
                relu=nn.ReLU(inplace=True),
            )
        )
        project = OrderedDict[str, nn.Module](conv=nn.Conv3d(inner, config.head_width, 1, bias=False))
        if config.project_norm:
            project["norm"] = nn.BatchNorm3d(config.head_width)
        project["relu"] = nn.ReLU(inplace=True)
        self.project = nn.Sequential(project)
        self.head = make_classifier(config.head_width, settings.num_classes)
        init_convolutions(self)
        if config.zero_init:
            for module in self.modules():
                if isinstance(module, Block):
                    module.zero_init()

    def forward_maps(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Return the widened last maps."""
        return (self.widen(self.stages(self.stem(clip))),)

    def project_pooled(self, pooled: Tensor) -> Tensor:
        """Return the features (N, num_features, 1, H, W) that averages (N, C, 1, H, W) are projected to."""
        features: Tensor = self.project(pooled)
        return features


def _shortcut(in_channels: int, out_channels: int, stride: int, *, norm: bool) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    layers = OrderedDict[str, nn.Module](conv=nn.Conv3d(in_channels, out_channels, 1, (1, stride, stride), bias=False))
    if norm or in_channels != out_channels:
        # As published in PyTorchVideo, a shortcut that only strides has no norm.
        layers["norm"] = nn.BatchNorm3d(out_channels)
    return nn.Sequential(layers)
