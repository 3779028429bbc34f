"""I3D: Inception-v1 with every kernel and pool inflated to three dimensions.

Source: Carreira and Zisserman, Quo Vadis, Action Recognition?, CVPR 2017, figure 3. Padding is TensorFlow's "SAME",
which puts the odd element at the end. Parameters have the names of the authors' weights in their PyTorch versions.
IBM's form is that of Chen et al., Deep Analysis of CNN-based Spatio-temporal Representations for Action Recognition,
CVPR 2021: symmetric padding, a stem that keeps all frames, and time halved by the last three pools.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..card import ModelSettings
from ..layers.dense_pool import DenseMaxPool3d
from ..layers.point_classifier import PointClassifier
from ..video_model import VideoModel, init_convolutions

MODULE_WIDTHS = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
"""Channels of Inception-v1's modules: 1x1; 1x1 and 3x3; 1x1 and second 3x3; 1x1 after the pool."""
_IMAGE_MODULES = dict(zip(MODULE_WIDTHS, ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"), strict=True))
_IMAGE_BRANCHES = {
    "b0": "branch1",
    "b1a": "branch2.0",
    "b1b": "branch2.1",
    "b2a": "branch3.0",
    "b2b": "branch3.1",
    "b3b": "branch4.1",
}
_IMAGE_STEM = {"Conv3d_1a_7x7": "conv1", "Conv3d_2b_1x1": "conv2", "Conv3d_2c_3x3": "conv3"}


@dataclass(frozen=True, kw_only=True, slots=True)
class I3DInceptionConfig:
    """The configuration of the network; its card lists the accepted values."""

    width: int
    """Channels of the stem; 64 in the paper. All other widths are scaled with it."""
    norm_momentum: float
    """Share of each batch in the running statistics of the batch norms."""
    form: str = "paper"
    """``"paper"`` or ``"ibm"``."""
    stem_temporal_stride: int = 1
    """Frames from one position of the first convolution to the next; 2 in the paper, 1 in IBM's form."""
    without_t_stride: bool = False
    """IBM's form only: keep all frames; otherwise the last three pools halve them."""
    pooling: str = "max"
    """IBM's form only: kind of the pools between stages, ``"max"`` or ``"avg"``."""

    @property
    def ibm(self) -> bool:
        """Whether the form is that of IBM's study."""
        return self.form == "ibm"

    def pool(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> nn.Module:
        """Return the paper's pool with this kernel and stride, or the one of IBM's form in its place."""
        if not self.ibm:
            # The input of the pool comes from a ReLU, so the zeros of the padding never exceed it.
            return nn.Sequential(SamePad(kernel, stride), nn.MaxPool3d(kernel, stride))
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        return (nn.AvgPool3d if self.pooling == "avg" else nn.MaxPool3d)(kernel, stride, padding)


def scaled(channels: int, width: int) -> int:
    """Return published `channels`, scaled from a stem of 64 to a stem of `width`; at least 1."""
    return max(channels * width // 64, 1)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's "SAME" padding of one axis, (before, after): the output has ceil(size / stride)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def average_as_published(maps: Tensor) -> Tensor:
    """Return the averages (N, C) of maps (N, C, T, H, W) over windows of (2, 7, 7), then over all windows.

    The frames at both ends weigh half as much as the others, as if windows were classified one by one and
    their logits averaged. Axes shorter than the window are averaged whole.
    """
    frames, height, width = maps.shape[2:]
    return F.avg_pool3d(maps, (min(frames, 2), min(height, 7), min(width, 7)), stride=1).mean((2, 3, 4))


class SamePad(nn.Module):
    """Pads with zeros so that a strided kernel has ceil(size / stride) outputs."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, T, H, W) padded on its last three axes."""
        axes = list(zip(x.shape[2:], self.kernel, self.stride, strict=True))
        # F.pad takes the last axis first.
        return F.pad(
            x, [side for size, kernel, stride in reversed(axes) for side in same_padding(size, kernel, stride)]
        )


class Unit(nn.Module):
    """A convolution without bias, a batch norm and a ReLU; padded "SAME", or symmetrically in IBM's form."""

    def __init__(
        self,
        config: I3DInceptionConfig,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        strided = stride != (1, 1, 1) and not config.ibm
        self.pad = SamePad((kernel,) * 3, stride) if strided else nn.Identity()
        # Without strides the padding is symmetric, and the convolution can do it itself.
        self.conv3d = nn.Conv3d(
            in_channels, out_channels, kernel, stride, padding=0 if strided else kernel // 2, bias=False
        )
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=config.norm_momentum)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to (N, out, ceil(T / t), ceil(H / s), ceil(W / s))."""
        y: Tensor = self.relu(self.bn(self.conv3d(self.pad(x))))
        return y


class Mixed(nn.Module):
    """Inception-v1's module: four parallel branches."""

    def __init__(self, config: I3DInceptionConfig, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = Unit(config, in_channels, widths[0], 1)
        self.b1a = Unit(config, in_channels, widths[1], 1)
        self.b1b = Unit(config, widths[1], widths[2], 3)
        self.b2a = Unit(config, in_channels, widths[3], 1)
        self.b2b = Unit(config, widths[3], widths[4], 3)
        self.b3a = DenseMaxPool3d()
        self.b3b = Unit(config, in_channels, widths[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, T, H, W) to the same positions, with the channels of the branches concatenated."""
        return torch.cat((self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))), dim=1)


class I3DInception(VideoModel):
    """The network; takes any number of frames of RGB or, with two channels, of optical flow."""

    classifier_name = "logits.conv3d"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = I3DInceptionConfig(**arguments)
        stem, wide = config.width, scaled(192, config.width)
        self.layers = [
            self._add(
                "Conv3d_1a_7x7", Unit(config, settings.in_channels, stem, 7, (config.stem_temporal_stride, 2, 2))
            ),
            self._add("MaxPool3d_2a_3x3", config.pool((1, 3, 3), (1, 2, 2))),
            self._add("Conv3d_2b_1x1", Unit(config, stem, stem, 1)),
            self._add("Conv3d_2c_3x3", Unit(config, stem, wide, 3)),
        ]
        pools = _pools(config)
        channels = wide
        for name, published in MODULE_WIDTHS.items():
            if name in pools:
                self.layers.append(self._add(*pools[name]))
            widths = tuple(scaled(width, config.width) for width in published)
            self.layers.append(self._add(f"Mixed_{name}", Mixed(config, channels, widths)))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        classifier = self.make_classifier(channels, settings.num_classes)
        self.logits = nn.Sequential(OrderedDict[str, nn.Module](conv3d=classifier))
        init_convolutions(self)

    def _add(self, name: str, module: nn.Module) -> str:
        self.add_module(name, module)
        return name

    @staticmethod
    def make_classifier(features: int, classes: int, *, bias: bool = True) -> nn.Linear:
        """Return a fresh last layer, of the shape of a convolution."""
        return PointClassifier(features, classes, bias=bias)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the convolutions before the mixed layers, then the mixed layers between pools."""
        kinds = ("Conv3d_", "Mixed_3", "Mixed_4", "Mixed_5")
        return tuple(tuple(name for name in self.layers if name.startswith(kind)) for kind in kinds)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features): see :func:`average_as_published`; the plain average in IBM's form."""
        for name in self.layers:
            clip = self.get_submodule(name)(clip)
        return clip.mean((2, 3, 4)) if self.config.ibm else average_as_published(clip)

    def image_names(self) -> dict[str, str]:
        """Return the names in torchvision's GoogLeNet."""
        names = {}
        for ours in self.state_dict():
            layer, *rest = ours.split(".")
            if layer in _IMAGE_STEM:
                theirs = [_IMAGE_STEM[layer], *rest]
            elif layer.startswith("Mixed_"):
                branch, *rest = rest
                theirs = [f"inception{_IMAGE_MODULES[layer.removeprefix('Mixed_')]}", _IMAGE_BRANCHES[branch], *rest]
            else:
                continue
            names[ours] = ".".join(theirs).replace(".conv3d.", ".conv.")
        return names


def _pools(config: I3DInceptionConfig) -> dict[str, tuple[str, nn.Module]]:
    """Return the names and layers of the pools between stages, by the module that each comes before."""
    if config.ibm:
        kernels, stride = ((3, 3, 3), (3, 3, 3), (3, 3, 3)), (1 if config.without_t_stride else 2, 2, 2)
        strides = (stride, stride, stride)
    else:
        kernels, strides = ((1, 3, 3), (3, 3, 3), (2, 2, 2)), ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    names = {"3b": "MaxPool3d_3a_3x3", "4b": "MaxPool3d_4a_3x3", "5b": "MaxPool3d_5a_2x2"}
    return {
        before: (name, config.pool(kernel, stride))
        for (before, name), kernel, stride in zip(names.items(), kernels, strides, strict=True)
    }
