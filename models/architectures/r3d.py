"""Residual networks of 3-D, mixed, and (2+1)-D convolutions: R3D, MC3, R(2+1)D.

Sources: Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018; Hara et al.,
Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?, CVPR 2018 (bottlenecks of full kernels; in its
authors' networks a stem of seven frames, and a pool over three frames after it). R(2+1)D with a pool after the stem and
shortcuts in two halves is MMAction2's.
Names of parameters are those of torchvision's ``VideoResNet``, so that its weights load unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ..card import ModelSettings
from ..layers.temporal_conv import TemporalConv3d
from ..video_model import VideoModel, init_convolutions, make_classifier

# Channels in the stem of the authors' network and of torchvision's; the formula of the paper gives 83.
_STEM_MIDPLANES = 45


@dataclass(frozen=True, kw_only=True, slots=True)
class R3DConfig:
    """The configuration of one of these networks; its card lists the accepted values."""

    convolution: str
    """``"r3d"``: 3x3x3; ``"mc3"``: 3x3x3 in the first stage, then 1x3x3; ``"r2plus1d"``: 1x3x3, then 3x1x1."""
    depth: int
    """18 or 34 (basic blocks), or 50 or 101 (bottlenecks)."""
    width: int
    zero_init: bool
    stem_pool: bool = False
    """Halve the image once more after the stem."""
    stem: str = "torchvision"
    """``"torchvision"``, whose first kernel has three frames, or ``"hara"``, whose first kernel has `stem_frames` and
    whose pool halves time too."""
    stem_frames: int = 3
    stem_temporal_stride: int = 1
    shortcut: str = "projection"
    """Of blocks that change the shape: ``"projection"``; ``"padding"`` with channels of zeros; in R(2+1)D ``"split"``,
    a projection in two halves as the other convolutions are."""
    without_t_stride: bool = False
    """Keep all frames; otherwise stages two to four halve them."""
    midplanes: str = "torchvision"
    """R(2+1)D only: ``"torchvision"`` or ``"paper"``; see :func:`split_midplanes`."""
    stem_midplanes: str = "torchvision"
    """R(2+1)D only, between the halves of the stem: ``"torchvision"``, 45 at full width, or ``"paper"``."""
    study_layout: bool = False
    """R(2+1)D only: the layout of IBM's study, with biases, split shortcuts and a stem by the formula."""


def split_midplanes(in_channels: int, out_channels: int, kernel: tuple[int, int] = (3, 3)) -> int:
    """Return M of section 3.5: a split `kernel` (time, space) then has about as many weights as the full one."""
    frames, area = kernel[0], kernel[1] ** 2
    return max(frames * area * in_channels * out_channels // (area * in_channels + frames * out_channels), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """The first convolution of a block: its kind, and its strides in time and in space."""

    kind: str
    t: int = 1
    s: int = 1

    @property
    def strides(self) -> tuple[int, int, int]:
        return (self.t, self.s, self.s)


class Block(nn.Module):
    """A branch of convolutions and a shortcut."""

    expansion: ClassVar[int]
    relu: nn.Module
    downsample: nn.Module | None

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual of (N, in, T, H, W), in the shape of the output."""
        raise NotImplementedError

    def last_norm(self) -> nn.Module:
        """Return the batch norm that ends the branch."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to (N, planes * expansion, T / t, H / s, W / s)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(self.branch(x) + shortcut)
        return y

    def zero_init(self) -> None:
        """Initialise the block so that it computes the shortcut alone."""
        norm = self.last_norm()
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.zeros_(norm.weight)


class BasicBlock(Block):
    """Two convolutions."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, step: _Step, config: R3DConfig) -> None:
        super().__init__()
        # torchvision sizes both convolutions by the first one; the paper sizes each separately.
        mid1 = split_midplanes(in_channels, planes)
        mid2 = mid1 if config.midplanes == "torchvision" else split_midplanes(planes, planes)
        bias = config.study_layout
        self.conv1 = nn.Sequential(
            _conv(in_channels, planes, step, mid1, bias=bias), nn.BatchNorm3d(planes), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(
            _conv(planes, planes, _Step(kind=step.kind), mid2, bias=bias), nn.BatchNorm3d(planes)
        )
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, planes, step, config)

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual of (N, in, T, H, W), in the shape of the output."""
        y: Tensor = self.conv2(self.conv1(x))
        return y

    def last_norm(self) -> nn.Module:
        """Return the batch norm that ends the branch."""
        return self.conv2[1]


class Bottleneck(Block):
    """1x1x1, the convolution of the network's kind (with the strides), 1x1x1."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, step: _Step, config: R3DConfig) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        # torchvision's size depends on the input of the block, not on that of the convolution.
        mid = split_midplanes(in_channels if config.midplanes == "torchvision" else planes, planes)
        self.conv1 = nn.Sequential(
            nn.Conv3d(in_channels, planes, 1, bias=False), nn.BatchNorm3d(planes), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(_conv(planes, planes, step, mid), nn.BatchNorm3d(planes), nn.ReLU(inplace=True))
        self.conv3 = nn.Sequential(nn.Conv3d(planes, out_channels, 1, bias=False), nn.BatchNorm3d(out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, out_channels, step, config)

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual of (N, in, T, H, W), in the shape of the output."""
        y: Tensor = self.conv3(self.conv2(self.conv1(x)))
        return y

    def last_norm(self) -> nn.Module:
        """Return the batch norm that ends the branch."""
        return self.conv3[1]


_DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class R3D(VideoModel):
    """The network, with any of its three kinds of convolution.

    Takes any number of frames; time is halved with space in stages two to four, except in MC3 and with
    `without_t_stride`.
    """

    classifier_name = "fc"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = R3DConfig(**arguments)
        self.stem = _stem(settings.in_channels, config)
        self.pool = _stem_pool(config)
        channels = config.width
        for index, kind in enumerate(_kinds(config.convolution)):
            stage = _stage(channels, index, kind, config)
            self.add_module(f"layer{index + 1}", stage)
            channels = config.width * 2**index * _DEPTHS[config.depth][0].expansion
        self.fc = make_classifier(channels, settings.num_classes)
        init_convolutions(self)
        if config.zero_init:
            for module in self.modules():
                if isinstance(module, Block):
                    module.zero_init()

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the last maps' averages over time and space."""
        x: Tensor = self.pool(self.stem(clip))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3, 4))

    def image_names(self) -> dict[str, str]:
        """Return the names in torchvision's ResNet of the same depth; none for R(2+1)D."""
        if self.config.convolution == "r2plus1d":
            return {}
        names = {}
        for ours in self.state_dict():
            if not ours.startswith("fc."):
                theirs = re.sub(r"(^|\.)(?:stem|conv(\d))\.0\.", lambda m: f"{m[1]}conv{m[2] or 1}.", ours)
                names[ours] = re.sub(r"(^|\.)(?:stem|conv(\d))\.1\.", lambda m: f"{m[1]}bn{m[2] or 1}.", theirs)
        return names


def _kinds(convolution: str) -> tuple[str, str, str, str]:
    """Return the kind of convolution in each of the four stages."""
    if convolution == "mc3":
        return ("full", "spatial", "spatial", "spatial")
    kind = {"r3d": "full", "r2plus1d": "split"}[convolution]
    return (kind, kind, kind, kind)


def _stage(in_channels: int, index: int, kind: str, config: R3DConfig) -> nn.Sequential:
    block, depths = _DEPTHS[config.depth]
    stride = 1 if index == 0 else 2
    t = 1 if kind == "spatial" or config.without_t_stride else stride
    planes = config.width * 2**index
    first = block(in_channels, planes, _Step(kind=kind, t=t, s=stride), config)
    step = _Step(kind=kind)
    return nn.Sequential(
        first, *(block(planes * block.expansion, planes, step, config) for _ in range(1, depths[index]))
    )


class PaddingShortcut(nn.Module):
    """A shortcut without parameters: every stride-th position, and zeros for the channels that are new."""

    def __init__(self, out_channels: int, strides: tuple[int, int, int]) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.strides = strides

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to (N, out, T / t, H / s, W / s)."""
        t, height, width = self.strides
        return F.pad(x[:, :, ::t, ::height, ::width], (0, 0, 0, 0, 0, 0, 0, self.out_channels - x.shape[1]))


def _stem_pool(config: R3DConfig) -> nn.Module:
    if not config.stem_pool:
        return nn.Identity()
    if config.stem == "hara":
        return nn.MaxPool3d(3, 2, 1)
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))


def _downsample(in_channels: int, out_channels: int, step: _Step, config: R3DConfig) -> nn.Module | None:
    if step.s == 1 and in_channels == out_channels:
        return None
    if config.shortcut == "padding":
        return PaddingShortcut(out_channels, step.strides)
    if config.study_layout or config.shortcut == "split":
        bias = config.study_layout
        # MMAction2's sizes are those of a kernel of three frames.
        mid = split_midplanes(in_channels, out_channels, (1 if bias else 3, 1))
        return nn.Sequential(
            nn.Conv3d(in_channels, mid, 1, (1, step.s, step.s), bias=bias),
            nn.BatchNorm3d(mid),
            nn.ReLU(inplace=True),
            nn.Conv3d(mid, out_channels, 1, (step.t, 1, 1), bias=bias),
            nn.BatchNorm3d(out_channels),
        )
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 1, step.strides, bias=False), nn.BatchNorm3d(out_channels)
    )


def _stem(in_channels: int, config: R3DConfig) -> nn.Sequential:
    width, frames, t = config.width, config.stem_frames, config.stem_temporal_stride
    if config.convolution != "r2plus1d":
        return nn.Sequential(
            nn.Conv3d(in_channels, width, (frames, 7, 7), (t, 2, 2), (frames // 2, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
    study = config.study_layout
    by_formula = study or config.stem == "hara" or config.stem_midplanes == "paper"
    # A narrower network keeps the proportion.
    mid = split_midplanes(in_channels, width, (frames, 7)) if by_formula else max(_STEM_MIDPLANES * width // 64, 1)
    layers = [
        nn.Conv3d(in_channels, mid, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=study),
        nn.BatchNorm3d(mid),
        nn.ReLU(inplace=True),
        TemporalConv3d(mid, width, frames, stride=t, bias=study),
    ]
    # The study's stem ends with its second convolution.
    return nn.Sequential(*layers, *([] if study else [nn.BatchNorm3d(width), nn.ReLU(inplace=True)]))


def _conv(in_channels: int, out_channels: int, step: _Step, midplanes: int, *, bias: bool = False) -> nn.Module:
    """Return a convolution over 3x3x3 (full), 1x3x3 (spatial), or 1x3x3 then 3x1x1 (split)."""
    if step.kind == "full":
        return nn.Conv3d(in_channels, out_channels, 3, step.strides, 1, bias=bias)
    if step.kind == "spatial":
        return nn.Conv3d(in_channels, out_channels, (1, 3, 3), step.strides, (0, 1, 1), bias=bias)
    return nn.Sequential(
        nn.Conv3d(in_channels, midplanes, (1, 3, 3), (1, step.s, step.s), (0, 1, 1), bias=bias),
        nn.BatchNorm3d(midplanes),
        nn.ReLU(inplace=True),
        TemporalConv3d(midplanes, out_channels, 3, stride=step.t, bias=bias),
    )
