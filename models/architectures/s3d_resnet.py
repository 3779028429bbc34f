"""S3D-ResNet: a residual network in which a convolution over three frames follows each 3x3 convolution.

Source: Chen et al., Deep Analysis of CNN-based Spatio-temporal Representations for Action Recognition, CVPR 2021.
Names of parameters are those of the authors' network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.temporal_conv import TemporalConv3d
from ..video_model import VideoModel, init_convolutions, make_classifier


@dataclass(frozen=True, kw_only=True, slots=True)
class S3DResNetConfig:
    """The configuration of the network; its card lists the accepted values."""

    depth: int
    """18 or 34 (basic blocks), or 50 or 101 (bottlenecks)."""
    width: int
    dw_t_conv: bool
    """Temporal convolutions treat each channel separately (depthwise)."""
    without_t_stride: bool
    """Keep all frames; otherwise stages two to four halve them."""
    zero_init: bool


class Block(nn.Module):
    """A branch of convolutions and a shortcut; `stride` is (time, space)."""

    expansion: ClassVar[int]
    last_norm: ClassVar[str]
    downsample: nn.Module | None

    def __init__(self, in_channels: int, planes: int, stride: tuple[int, int]) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride[1] != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, (stride[0], stride[1], stride[1]), bias=False),
                nn.BatchNorm3d(out_channels),
            )

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual of (N, in, T, H, W), in the shape of the output."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to (N, planes * expansion, T / t, H / s, W / s)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(self.branch(x) + shortcut)
        return y

    def zero_init(self) -> None:
        """Initialise the block so that it computes the shortcut alone."""
        norm = self.get_submodule(self.last_norm)
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.zeros_(norm.weight)


class BasicBlock(Block):
    """Convolutions in space, time, space and time."""

    expansion = 1
    last_norm = "bn2_t"

    def __init__(self, in_channels: int, planes: int, stride: tuple[int, int], *, depthwise: bool) -> None:
        super().__init__(in_channels, planes, stride)
        self.conv1, self.bn1 = _space(in_channels, planes, stride[1])
        self.conv1_t, self.bn1_t = _time(planes, stride[0], depthwise)
        self.conv2, self.bn2 = _space(planes, planes)
        self.conv2_t, self.bn2_t = _time(planes, 1, depthwise)

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual of (N, in, T, H, W), in the shape of the output."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn1_t(self.conv1_t(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        y: Tensor = self.bn2_t(self.conv2_t(x))
        return y


class Bottleneck(Block):
    """1x1x1, a convolution in space, one in time, 1x1x1."""

    expansion = 4
    last_norm = "bn3"

    def __init__(self, in_channels: int, planes: int, stride: tuple[int, int], *, depthwise: bool) -> None:
        super().__init__(in_channels, planes, stride)
        self.conv1, self.bn1 = nn.Conv3d(in_channels, planes, 1, bias=False), nn.BatchNorm3d(planes)
        self.conv2, self.bn2 = _space(planes, planes, stride[1])
        self.conv2_t, self.bn2_t = _time(planes, stride[0], depthwise)
        self.conv3, self.bn3 = nn.Conv3d(planes, planes * 4, 1, bias=False), nn.BatchNorm3d(planes * 4)

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual of (N, in, T, H, W), in the shape of the output."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn2_t(self.conv2_t(x)))
        y: Tensor = self.bn3(self.conv3(x))
        return y


_DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class S3DResNet(VideoModel):
    """The network; takes any number of frames."""

    classifier_name = "fc"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = S3DResNetConfig(**arguments)
        self.conv1 = nn.Conv3d(settings.in_channels, config.width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(config.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        block, depths = _DEPTHS[config.depth]
        channels = config.width
        for index, count in enumerate(depths):
            planes = config.width * 2**index
            time = 1 if index == 0 or config.without_t_stride else 2
            strides = [(time, 1 if index == 0 else 2)] + [(1, 1)] * (count - 1)
            blocks = []
            for stride in strides:
                blocks.append(block(channels, planes, stride, depthwise=config.dw_t_conv))
                channels = planes * block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.fc = make_classifier(channels, settings.num_classes)
        init_convolutions(self)
        if config.zero_init:
            for module in self.modules():
                if isinstance(module, Block):
                    module.zero_init()

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the stem and the stages."""
        return (("conv1", "bn1"), *((f"layer{number}",) for number in range(1, 5)))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the last maps' averages over time and space."""
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(clip))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3, 4))

    def image_names(self) -> dict[str, str]:
        """Return the names in torchvision's ResNet of the same depth, which has no temporal convolutions."""
        return {name: name for name in self.state_dict() if not name.startswith("fc.") and "_t." not in name}


def _space(in_channels: int, out_channels: int, stride: int = 1) -> tuple[nn.Conv3d, nn.BatchNorm3d]:
    conv = nn.Conv3d(in_channels, out_channels, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
    return conv, nn.BatchNorm3d(out_channels)


def _time(channels: int, stride: int, depthwise: bool) -> tuple[nn.Conv3d, nn.BatchNorm3d]:
    groups = channels if depthwise else 1
    conv = TemporalConv3d(channels, channels, 3, stride=stride, groups=groups)
    return conv, nn.BatchNorm3d(channels)
