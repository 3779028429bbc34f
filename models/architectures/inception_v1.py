"""Inception-v1 (GoogLeNet) with batch norm over the frames of a clip, plain (TSN) or with temporal modules.

Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, table 1, without its two auxiliary heads.
Names of parameters are those of torchvision's ``GoogLeNet``, whose "5x5" branch is a 3x3 convolution. There is a
temporal module, ``tam1`` to ``tam5b``, after every convolution of the stem and every mixed layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.temporal_modules import NonLocal, TemporalModule, TemporalPool
from ..video_model import init_convolutions, make_classifier
from .frame_model import FrameModel
from .resnet2d import temporal_module

# Widths of the mixed layers: 1x1; 1x1 and 3x3; 1x1 and "5x5"; after the pool.
_MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
# The mixed layers before which images are pooled, and those that a non-local block follows.
_POOLED_BEFORE = {"3a": "maxpool2", "4a": "maxpool3", "5a": "maxpool4"}
_NON_LOCAL_AFTER = ("3b", "4b", "4d")


@dataclass(frozen=True, kw_only=True, slots=True)
class InceptionV1Config:
    """The configuration of one of these networks; its card lists the accepted values."""

    width: int
    consensus: str
    seq_len: int = 1
    temporal_module: str = "none"
    non_local: bool = False
    temporal_stride: bool = False
    pooling: str = "max"
    shift_divisor: int = 8
    blend_frames: int = 3
    blend_method: str = "sum"
    blend_depthwise: bool = True
    blend_init: str = "centre"
    partial_norm: bool = False

    def scaled(self, channels: int) -> int:
        """Return a published width, scaled with the width of the stem."""
        return max(channels * self.width // 64, 1)


class ConvNorm(nn.Module):
    """Convolution, batch norm with an epsilon of 1e-3, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


class Mixed(nn.Module):
    """Four parallel branches."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, three_in, three, five_in, five, pooled = widths
        self.out_channels = one + three + five + pooled
        self.branch1 = ConvNorm(in_channels, one, 1)
        self.branch2 = nn.Sequential(ConvNorm(in_channels, three_in, 1), ConvNorm(three_in, three, 3))
        self.branch3 = nn.Sequential(ConvNorm(in_channels, five_in, 1), ConvNorm(five_in, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvNorm(in_channels, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out_channels, H, W)."""
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), dim=1)


class InceptionV1(FrameModel):
    """The network; takes any number of frames."""

    temporal_names = ("tam", "nl")
    optional_names = ("aux1.", "aux2.")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = InceptionV1Config(**arguments)
        stem, last = config.scaled(64), config.scaled(192)
        self.conv1 = ConvNorm(self.image_channels, stem, 7, stride=2)
        self.conv2 = ConvNorm(stem, stem, 1)
        self.conv3 = ConvNorm(stem, last, 3)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        channels = {"1": stem, "2": stem, "3": last}
        for name, widths in _MIXED.items():
            mixed = Mixed(last, tuple(config.scaled(width) for width in widths))
            setattr(self, f"inception{name}", mixed)
            channels[name] = last = mixed.out_channels
        init_convolutions(self)
        for name, width in channels.items():
            setattr(self, f"tam{name}", temporal_module(width, config))
            if config.non_local and name in _NON_LOCAL_AFTER:
                setattr(self, f"nl{name}", NonLocal(width))
        self.pool = TemporalPool(config.pooling, stride=2) if config.temporal_stride else None
        self.fc = make_classifier(last, settings.num_classes)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the convolutions before the mixed layers, then the mixed layers between pools."""
        names = (("1", "2", "3"), *(tuple(name for name in _MIXED if name[0] == number) for number in "345"))
        kinds = (("conv", "tam", "nl"), *[("inception", "tam", "nl")] * 3)
        return tuple(
            tuple(f"{kind}{name}" for name in layer for kind in of_layer)
            for layer, of_layer in zip(names, kinds, strict=True)
        )

    def image_features(self, images: Tensor, length: int) -> Tensor:
        """Return the averages of the last maps over space."""
        x = self.maxpool1(self._temporal("1", self.conv1(images), length))
        x = self._temporal("2", self.conv2(x), length)
        x = self._temporal("3", self.conv3(x), length)
        for name in _MIXED:
            if name in _POOLED_BEFORE:
                x = self.get_submodule(_POOLED_BEFORE[name])(x)
                if self.pool is not None:
                    x, length = self.pool(x, length), self.pool.pooled_length(length)
            x = self._temporal(name, self.get_submodule(f"inception{name}")(x), length)
        return x.mean((2, 3))

    def _temporal(self, name: str, x: Tensor, length: int) -> Tensor:
        """Return `x` after the temporal modules that follow a layer."""
        for kind in ("tam", "nl"):
            module = getattr(self, f"{kind}{name}", None)
            if isinstance(module, TemporalModule):
                x = module(x, length)
        return x
