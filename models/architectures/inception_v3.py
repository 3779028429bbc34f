"""Inception-v3 over the frames of a clip.

Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016, figures 5 to 7 and
table 1. Names of parameters are those of torchvision's ``Inception3``. Unlike there, inputs are not transformed:
clips must be normalised with the mean and deviation of the card.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..card import ModelSettings
from ..layers.temporal_modules import as_clips
from ..video_model import init_convolutions, make_classifier
from .frame_model import FrameModel, fold_frames, segment_consensus

_Kernel = int | tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class InceptionV3Config:
    """The configuration of the network; its card lists the accepted values."""

    width: int
    consensus: str
    seq_len: int
    aux: bool
    aux_weight: float

    def scaled(self, channels: int) -> int:
        """Return a published width, scaled with the width of the stem."""
        return max(channels * self.width // 32, 1)


class ConvNorm(nn.Module):
    """Convolution, batch norm with an epsilon of 1e-3, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: _Kernel, *, stride: int = 1, same: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if same else (0, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H', W')."""
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


class Mixed(nn.Module):
    """Parallel branches, each a chain of convolutions; some are split in two at their end."""

    out_channels: int

    def _chain(self, prefix: str, in_channels: int, *layers: tuple[str, int, _Kernel, int]) -> None:
        """Add convolutions named `prefix` + suffix, each (suffix, channels, kernel, stride).

        A convolution with stride 2 has no padding.
        """
        for suffix, channels, kernel, stride in layers:
            layer = ConvNorm(in_channels, channels, kernel, stride=stride, same=stride == 1)
            self.add_module(prefix + suffix, layer)
            in_channels = channels

    def _run(self, prefix: str, x: Tensor, *suffixes: str) -> Tensor:
        for suffix in suffixes:
            x = self.get_submodule(prefix + suffix)(x)
        return x


class MixedA(Mixed):
    """Figure 5: two 3x3 in place of a 5x5, at 35 x 35."""

    def __init__(self, in_channels: int, pooled: int, scaled: Callable[[int], int]) -> None:
        super().__init__()
        c48, c64, c96 = scaled(48), scaled(64), scaled(96)
        self._chain("branch1x1", in_channels, ("", c64, 1, 1))
        self._chain("branch5x5_", in_channels, ("1", c48, 1, 1), ("2", c64, 5, 1))
        self._chain("branch3x3dbl_", in_channels, ("1", c64, 1, 1), ("2", c96, 3, 1), ("3", c96, 3, 1))
        self._chain("branch_pool", in_channels, ("", scaled(pooled), 1, 1))
        self.out_channels = 2 * c64 + c96 + scaled(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out_channels, H, W)."""
        branches = (
            self._run("branch1x1", x, ""),
            self._run("branch5x5_", x, "1", "2"),
            self._run("branch3x3dbl_", x, "1", "2", "3"),
            self._run("branch_pool", F.avg_pool2d(x, 3, 1, 1), ""),
        )
        return torch.cat(branches, dim=1)


class MixedB(Mixed):
    """From 35 x 35 to 17 x 17."""

    def __init__(self, in_channels: int, scaled: Callable[[int], int]) -> None:
        super().__init__()
        c64, c96, c384 = scaled(64), scaled(96), scaled(384)
        self._chain("branch3x3", in_channels, ("", c384, 3, 2))
        self._chain("branch3x3dbl_", in_channels, ("1", c64, 1, 1), ("2", c96, 3, 1), ("3", c96, 3, 2))
        self.out_channels = c384 + c96 + in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out_channels, (H - 1) / 2, (W - 1) / 2)."""
        branches = (
            self._run("branch3x3", x, ""),
            self._run("branch3x3dbl_", x, "1", "2", "3"),
            F.max_pool2d(x, 3, 2),
        )
        return torch.cat(branches, dim=1)


class MixedC(Mixed):
    """Figure 6: 1x7 and 7x1 in place of 7x7, at 17 x 17."""

    def __init__(self, in_channels: int, inner: int, scaled: Callable[[int], int]) -> None:
        super().__init__()
        c, c192 = scaled(inner), scaled(192)
        self._chain("branch1x1", in_channels, ("", c192, 1, 1))
        self._chain("branch7x7_", in_channels, ("1", c, 1, 1), ("2", c, (1, 7), 1), ("3", c192, (7, 1), 1))
        self._chain(
            "branch7x7dbl_",
            in_channels,
            ("1", c, 1, 1),
            ("2", c, (7, 1), 1),
            ("3", c, (1, 7), 1),
            ("4", c, (7, 1), 1),
            ("5", c192, (1, 7), 1),
        )
        self._chain("branch_pool", in_channels, ("", c192, 1, 1))
        self.out_channels = 4 * c192

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out_channels, H, W)."""
        branches = (
            self._run("branch1x1", x, ""),
            self._run("branch7x7_", x, "1", "2", "3"),
            self._run("branch7x7dbl_", x, "1", "2", "3", "4", "5"),
            self._run("branch_pool", F.avg_pool2d(x, 3, 1, 1), ""),
        )
        return torch.cat(branches, dim=1)


class MixedD(Mixed):
    """From 17 x 17 to 8 x 8."""

    def __init__(self, in_channels: int, scaled: Callable[[int], int]) -> None:
        super().__init__()
        c192, c320 = scaled(192), scaled(320)
        self._chain("branch3x3_", in_channels, ("1", c192, 1, 1), ("2", c320, 3, 2))
        self._chain(
            "branch7x7x3_",
            in_channels,
            ("1", c192, 1, 1),
            ("2", c192, (1, 7), 1),
            ("3", c192, (7, 1), 1),
            ("4", c192, 3, 2),
        )
        self.out_channels = c320 + c192 + in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out_channels, (H - 1) / 2, (W - 1) / 2)."""
        branches = (
            self._run("branch3x3_", x, "1", "2"),
            self._run("branch7x7x3_", x, "1", "2", "3", "4"),
            F.max_pool2d(x, 3, 2),
        )
        return torch.cat(branches, dim=1)


class MixedE(Mixed):
    """Figure 7: branches that end in parallel 1x3 and 3x1 convolutions, at 8 x 8."""

    def __init__(self, in_channels: int, scaled: Callable[[int], int]) -> None:
        super().__init__()
        c192, c320, c384, c448 = scaled(192), scaled(320), scaled(384), scaled(448)
        self._chain("branch1x1", in_channels, ("", c320, 1, 1))
        self._chain("branch3x3_", in_channels, ("1", c384, 1, 1))
        self._chain("branch3x3dbl_", in_channels, ("1", c448, 1, 1), ("2", c384, 3, 1))
        for split in ("branch3x3_2", "branch3x3dbl_3"):
            self._chain(split, c384, ("a", c384, (1, 3), 1))
            self._chain(split, c384, ("b", c384, (3, 1), 1))
        self._chain("branch_pool", in_channels, ("", c192, 1, 1))
        self.out_channels = c320 + 4 * c384 + c192

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out_channels, H, W)."""
        once = self._run("branch3x3_", x, "1")
        twice = self._run("branch3x3dbl_", x, "1", "2")
        branches = (
            self._run("branch1x1", x, ""),
            self._run("branch3x3_", once, "2a"),
            self._run("branch3x3_", once, "2b"),
            self._run("branch3x3dbl_", twice, "3a"),
            self._run("branch3x3dbl_", twice, "3b"),
            self._run("branch_pool", F.avg_pool2d(x, 3, 1, 1), ""),
        )
        return torch.cat(branches, dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier on the maps in the middle, for training only."""

    def __init__(self, in_channels: int, num_classes: int, scaled: Callable[[int], int]) -> None:
        super().__init__()
        self.conv0 = ConvNorm(in_channels, scaled(128), 1)
        self.conv1 = ConvNorm(scaled(128), scaled(768), 5, same=False)
        self.fc = make_classifier(scaled(768), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W), 17 x 17 as published, to logits (N, num_classes)."""
        # Clips below 299 pixels have maps too small for the published pool: these are averaged to its output size.
        pooled = F.avg_pool2d(x, 5, 3) if min(x.shape[2:]) >= 17 else F.adaptive_avg_pool2d(x, 5)
        y: Tensor = self.conv1(self.conv0(pooled))
        logits: Tensor = self.fc(y.mean((2, 3)))
        return logits


class InceptionV3(FrameModel):
    """The network, with an auxiliary head if the configuration asks for one."""

    optional_names = ("AuxLogits.",)

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = InceptionV3Config(**arguments)
        for name, layer in _stem(self.image_channels, config).items():
            self.add_module(name, layer)
        channels = config.scaled(192)
        for name, make in _mixed(config).items():
            mixed = make(channels)
            if name == "Mixed_7a":
                self.AuxLogits = AuxiliaryHead(channels, settings.num_classes, config.scaled) if config.aux else None
            self.add_module(name, mixed)
            channels = mixed.out_channels
        self._layers = (*_stem(1, config), *_mixed(config))
        init_convolutions(self)
        self.fc = make_classifier(channels, settings.num_classes)

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of the classifier and, if there is one, of the auxiliary head's classifier."""
        return ("fc",) if self.AuxLogits is None else ("fc", "AuxLogits.fc")

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the convolutions before the mixed layers, then the mixed layers of each size of maps."""
        kinds = ("Conv2d_", "Mixed_5", "Mixed_6", "Mixed_7")
        return tuple(tuple(name for name in self._layers if name.startswith(kind)) for kind in kinds)

    def image_features(self, images: Tensor, length: int) -> Tensor:
        """Return the averages of the last maps over space."""
        return self._run(self._middle(images), self._layers[self._split :])

    def training_loss(
        self, clip: Tensor, targets: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, with `aux_weight` times that of the auxiliary head, and the logits."""
        if self.AuxLogits is None:
            return super().training_loss(clip, targets, criterion)
        self.check_input(clip)
        middle = self._middle(fold_frames(clip, self.seq_len))
        images = middle.shape[0] // clip.shape[0]
        features = as_clips(self._run(middle, self._layers[self._split :]), images)
        logits = segment_consensus(self.fc(self.dropout(features)), self.consensus)
        auxiliary = segment_consensus(as_clips(self.AuxLogits(middle), images), self.consensus)
        loss = criterion(logits, targets) + self.config.aux_weight * criterion(auxiliary, targets)
        return loss, logits

    @property
    def _split(self) -> int:
        return self._layers.index("Mixed_7a")

    def _middle(self, images: Tensor) -> Tensor:
        return self._maps(images, self._layers[: self._split])

    def _run(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        return self._maps(x, names).mean((2, 3))

    def _maps(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


def _stem(in_channels: int, config: InceptionV3Config) -> OrderedDict[str, nn.Module]:
    c32, c64, c80, c192 = (config.scaled(width) for width in (32, 64, 80, 192))
    return OrderedDict[str, nn.Module](
        Conv2d_1a_3x3=ConvNorm(in_channels, c32, 3, stride=2, same=False),
        Conv2d_2a_3x3=ConvNorm(c32, c32, 3, same=False),
        Conv2d_2b_3x3=ConvNorm(c32, c64, 3),
        maxpool1=nn.MaxPool2d(3, 2),
        Conv2d_3b_1x1=ConvNorm(c64, c80, 1),
        Conv2d_4a_3x3=ConvNorm(c80, c192, 3, same=False),
        maxpool2=nn.MaxPool2d(3, 2),
    )


def _mixed(config: InceptionV3Config) -> dict[str, Callable[[int], Mixed]]:
    """Return the functions that make the mixed layers from their numbers of input channels, in order."""
    scaled = config.scaled
    return {
        "Mixed_5b": lambda channels: MixedA(channels, 32, scaled),
        "Mixed_5c": lambda channels: MixedA(channels, 64, scaled),
        "Mixed_5d": lambda channels: MixedA(channels, 64, scaled),
        "Mixed_6a": lambda channels: MixedB(channels, scaled),
        "Mixed_6b": lambda channels: MixedC(channels, 128, scaled),
        "Mixed_6c": lambda channels: MixedC(channels, 160, scaled),
        "Mixed_6d": lambda channels: MixedC(channels, 160, scaled),
        "Mixed_6e": lambda channels: MixedC(channels, 192, scaled),
        "Mixed_7a": lambda channels: MixedD(channels, scaled),
        "Mixed_7b": lambda channels: MixedE(channels, scaled),
        "Mixed_7c": lambda channels: MixedE(channels, scaled),
    }
