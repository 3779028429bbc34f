"""S3D and S3D-G: Inception-v1 with 3-D convolutions split into space and time, without or with gates.

Source: Xie et al., Rethinking Spatiotemporal Feature Learning, ECCV 2018, sections 4 and 5.
Names of parameters are those of torchvision's ``S3D``, so that its weights load unchanged.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.dense_pool import DenseMaxPool3d
from ..layers.point_classifier import PointClassifier
from ..layers.temporal_conv import TemporalConv3d
from ..video_model import VideoModel, init_convolutions
from .i3d_inception import MODULE_WIDTHS, average_as_published, scaled


@dataclass(frozen=True, kw_only=True, slots=True)
class S3DConfig:
    """The configuration of the network; its card lists the accepted values."""

    layout: str
    """``"torchvision"``, or ``"ibm"``: a plain stem that keeps all frames, which the last three pools halve;
    biases in temporal convolutions; and a plain average at the end."""
    width: int
    """Channels of the stem; 64 in the paper. All other widths are scaled with it."""
    gating: str
    """``"none"``; ``"temporal"``: after every temporal convolution, as in the paper; ``"branches"``: after every
    branch and the second convolution, as in the authors' program."""
    dw_t_conv: bool
    without_t_stride: bool
    norm_momentum: float
    """Share of each batch in the running statistics of the batch norms."""
    pooling: str = "max"
    """Kind of the pools between stages: ``"max"`` or ``"avg"``."""

    @property
    def time_stride(self) -> int:
        """Stride in time of the layers that may halve it."""
        return 1 if self.without_t_stride else 2

    @property
    def ibm(self) -> bool:
        """Whether the layout is that of IBM's study."""
        return self.layout == "ibm"


class Gate(nn.Module):
    """Scales each channel by the sigmoid of a linear layer of all channels' averages (self-gating, section 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(channels, channels)
        nn.init.normal_(self.weigh.weight, std=0.01)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, H, W) to the same shape."""
        scale: Tensor = torch.sigmoid(self.weigh(x.mean((2, 3, 4))))
        return x * scale[:, :, None, None, None]


class S3D(VideoModel):
    """The network; takes five frames or more."""

    classifier_name = "classifier.1"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = S3DConfig(**arguments)
        stem, wide = config.width, scaled(192, config.width)
        layers = [
            _stem(settings.in_channels, config),
            _pool(config, kernel=(1, 3, 3), stride=(1, 2, 2)),
            _unit(config, stem, stem, (1, 1, 1)),
            _separable(config, stem, wide, kernel=3, gated=config.gating != "none"),
            # torchvision's layout has halved time in the stem already.
            _pool(config, kernel=(3, 3, 3), stride=(config.time_stride, 2, 2))
            if config.ibm
            else _pool(config, kernel=(1, 3, 3), stride=(1, 2, 2)),
        ]
        channels = wide
        for name, published in MODULE_WIDTHS.items():
            if name in ("4b", "5b"):
                kernel = 3 if name == "4b" else 2
                layers.append(_pool(config, kernel=(kernel,) * 3, stride=(config.time_stride, 2, 2)))
            widths = tuple(scaled(width, config.width) for width in published)
            layers.append(SeparableMixed(config, channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.features = nn.Sequential(*layers)
        classifier = self.make_classifier(channels, settings.num_classes)
        self.classifier = nn.Sequential(OrderedDict[str, nn.Module]({"1": classifier}))
        init_convolutions(self)

    @staticmethod
    def make_classifier(features: int, classes: int, *, bias: bool = True) -> nn.Linear:
        """Return a fresh last layer, of the shape of a convolution."""
        return PointClassifier(features, classes, bias=bias)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the convolutions before the mixed layers, then the mixed layers between pools."""
        mixed = [name for name, module in self.features.named_children() if isinstance(module, SeparableMixed)]
        before = [name for name, _ in self.features.named_children() if int(name) < int(mixed[0])]
        numbers = [module[0] for module in MODULE_WIDTHS]
        stages = ([name for name, of in zip(mixed, numbers, strict=True) if of == number] for number in "345")
        return tuple(tuple(f"features.{name}" for name in layer) for layer in (before, *stages))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features); see :func:`models.architectures.i3d_inception.average_as_published`."""
        maps: Tensor = self.features(clip)
        return maps.mean((2, 3, 4)) if self.config.ibm else average_as_published(maps)


class SeparableMixed(nn.Module):
    """Inception-v1's module, with 3x3 convolutions split into space and time."""

    def __init__(self, config: S3DConfig, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        everywhere = config.gating == "branches"
        gated = config.gating != "none"
        self.branch0 = _unit(config, in_channels, widths[0], (1, 1, 1), gated=everywhere)
        self.branch1 = nn.Sequential(
            _unit(config, in_channels, widths[1], (1, 1, 1)),
            _separable(config, widths[1], widths[2], kernel=3, gated=gated),
        )
        self.branch2 = nn.Sequential(
            _unit(config, in_channels, widths[3], (1, 1, 1)),
            _separable(config, widths[3], widths[4], kernel=3, gated=gated),
        )
        self.branch3 = nn.Sequential(
            DenseMaxPool3d(), _unit(config, in_channels, widths[5], (1, 1, 1), gated=everywhere)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to the same positions, with the channels of the branches concatenated."""
        return torch.cat((self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)), dim=1)


def _stem(in_channels: int, config: S3DConfig) -> nn.Sequential:
    if config.ibm:
        return _unit(config, in_channels, config.width, (3, 7, 7), stride=(1, 2, 2))
    stride = (config.time_stride, 2)
    # The authors' program gates from the second convolution on.
    return _separable(config, in_channels, config.width, kernel=7, stride=stride, gated=config.gating == "temporal")


def _separable(
    config: S3DConfig,
    in_channels: int,
    out_channels: int,
    *,
    kernel: int,
    stride: tuple[int, int] = (1, 1),
    gated: bool = False,
) -> nn.Sequential:
    """Return a convolution in space, then one in time; `stride` is (time, space)."""
    space = _unit(config, in_channels, out_channels, (1, kernel, kernel), stride=(1, stride[1], stride[1]))
    time = _unit(
        config,
        out_channels,
        out_channels,
        (kernel, 1, 1),
        stride=(stride[0], 1, 1),
        groups=out_channels if config.dw_t_conv else 1,
        bias=config.ibm,
    )
    return nn.Sequential(space, time, *([Gate(out_channels)] if gated else []))


def _unit(
    config: S3DConfig,
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int, int],
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
    groups: int = 1,
    bias: bool = False,
    gated: bool = False,
) -> nn.Sequential:
    """Return a convolution, a batch norm and a ReLU, gated or not."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv: nn.Conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias)
    if kernel[0] > 1 and kernel[1:] == (1, 1):
        conv = TemporalConv3d(in_channels, out_channels, kernel[0], stride=stride[0], groups=groups, bias=bias)
    return nn.Sequential(
        conv,
        nn.BatchNorm3d(out_channels, eps=1e-3, momentum=config.norm_momentum),
        nn.ReLU(inplace=True),
        *([Gate(out_channels)] if gated else []),
    )


def _pool(config: S3DConfig, *, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> nn.Module:
    padding = (kernel[0] // 2, 1, 1) if kernel[1] == 3 else (0, 0, 0)
    if config.pooling == "avg":
        return nn.AvgPool3d(kernel, stride, padding)
    return nn.MaxPool3d(kernel, stride, padding)
