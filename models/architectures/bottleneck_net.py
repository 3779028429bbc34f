"""Residual networks with a cheaper 3-D convolution in their bottlenecks: CSN, and PyTorchVideo's R(2+1)D-50.

Sources: Tran et al., Video Classification with Channel-Separated Convolutional Networks, ICCV 2019, figure 2 (the
interaction-reduced and the interaction-preserved block, with depthwise convolutions); Tran et al., A Closer Look at
Spatiotemporal Convolutions for Action Recognition, CVPR 2018, with the halves of a convolution in PyTorchVideo's order,
time first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.temporal_conv import TemporalConv3d
from ..video_model import VideoModel, init_convolutions, make_classifier
from .slowfast import image_name

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True, kw_only=True, slots=True)
class BottleneckNetConfig:
    """The configuration of one of these networks; its card lists the accepted values."""

    kind: str
    """``"separated"``: a depthwise 3x3x3 convolution; ``"preserved"``: a 1x1x1 convolution before it; ``"split"``:
    3x1x1, then 1x3x3."""
    depth: int
    width: int
    zero_init: bool
    norm_eps: float = 1e-5
    """What batch norms add to the variance."""

    @property
    def strides(self) -> tuple[tuple[int, int, int], ...]:
        """Strides (time, height, width) of the first block of each stage."""
        if self.kind != "split":
            return ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
        return ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))


class Bottleneck(nn.Module):
    """``relu(branch(x) + shortcut(x))``: 1x1x1, the convolution of the network's kind with the strides, 1x1x1."""

    def __init__(self, in_channels: int, inner: int, strides: tuple[int, int, int], kind: str) -> None:
        super().__init__()
        out_channels = 4 * inner
        self.branch = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv_a=nn.Conv3d(in_channels, inner, 1, bias=False),
                norm_a=nn.BatchNorm3d(inner),
                relu_a=nn.ReLU(inplace=True),
                conv_b=_middle(inner, strides, kind),
                norm_b=nn.BatchNorm3d(inner),
                relu_b=nn.ReLU(inplace=True),
                conv_c=nn.Conv3d(inner, out_channels, 1, bias=False),
                norm_c=nn.BatchNorm3d(out_channels),
            )
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or strides != (1, 1, 1):
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, strides, bias=False), nn.BatchNorm3d(out_channels)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to (N, 4 * inner, T, H, W), each axis divided by its stride."""
        y: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return y


class BottleneckNet(VideoModel):
    """The network, with either kind of bottleneck; takes any number of frames."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = BottleneckNetConfig(**arguments)
        self.path = nn.Sequential(
            OrderedDict[str, nn.Module](stem=_stem(settings.in_channels, config), stages=_stages(config))
        )
        self.head = make_classifier(32 * config.width, settings.num_classes)
        init_convolutions(self)
        for name, module in self.named_modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = config.norm_eps
                if config.zero_init and name.endswith("norm_c"):
                    nn.init.zeros_(module.weight)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the stem and the stages."""
        return (("path.stem",), *((f"path.stages.{index}",) for index in range(len(self.config.strides))))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the last maps' averages over time and space."""
        maps: Tensor = self.path(clip)
        return maps.mean((2, 3, 4))

    def image_names(self) -> dict[str, str]:
        """Return the names in torchvision's ResNet of the same depth, as far as that has the same layers.

        CSN keeps its own depthwise convolutions and the norms after them, R(2+1)D its temporal convolutions and the
        norms between the halves.
        """
        names = {}
        for ours in self.path.state_dict():
            theirs = ours.replace(".conv_b.conv_xy.", ".conv_b.")
            is_own = theirs == ours and ".conv_b." in ours
            is_own |= self.config.kind == "separated" and ".norm_b." in ours
            if not is_own:
                names[f"path.{ours}"] = image_name(theirs)
        return names

    @property
    def unused_image_names(self) -> tuple[str, ...]:  # type: ignore[override]  # it depends on the kind of network
        """Return the ends of the image network's names that CSN does not take: its kernels are depthwise."""
        norm = tuple(
            f".bn2.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        )
        return {"separated": (".conv2.weight", *norm), "preserved": (".conv2.weight",)}.get(self.config.kind, ())


def _stem(in_channels: int, config: BottleneckNetConfig) -> nn.Sequential:
    frames = 1 if config.kind == "split" else 3
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv3d(in_channels, config.width, (frames, 7, 7), (1, 2, 2), (frames // 2, 3, 3), bias=False),
        norm=nn.BatchNorm3d(config.width),
        relu=nn.ReLU(inplace=True),
    )
    if config.kind != "split":
        layers["pool"] = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
    return nn.Sequential(layers)


def _stages(config: BottleneckNetConfig) -> nn.Sequential:
    stages, channels = [], config.width
    for index, (count, strides) in enumerate(zip(_BLOCKS[config.depth], config.strides, strict=True)):
        inner = config.width * 2**index
        first = Bottleneck(channels, inner, strides, config.kind)
        channels = 4 * inner
        later = (Bottleneck(channels, inner, (1, 1, 1), config.kind) for _ in range(1, count))
        stages.append(nn.Sequential(first, *later))
    return nn.Sequential(*stages)


def _middle(channels: int, strides: tuple[int, int, int], kind: str) -> nn.Module:
    """Return the convolution in the middle of a bottleneck."""
    if kind == "split":
        return _split(channels, strides)
    depthwise = nn.Conv3d(channels, channels, 3, strides, 1, groups=channels, bias=False)
    if kind == "separated":
        return depthwise
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            mix=nn.Conv3d(channels, channels, 1, bias=False), norm=nn.BatchNorm3d(channels), depthwise=depthwise
        )
    )


def _split(channels: int, strides: tuple[int, int, int]) -> nn.Sequential:
    t, h, w = strides
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv_t=TemporalConv3d(channels, channels, 3, stride=t),
            norm=nn.BatchNorm3d(channels),
            relu=nn.ReLU(inplace=True),
            conv_xy=nn.Conv3d(channels, channels, (1, 3, 3), (1, h, w), (0, 1, 1), bias=False),
        )
    )
