"""Temporal modules, which combine the images of a clip: shift, aggregation, pooling, non-local.

Each takes images (N * T, C, H, W), ordered by clip, and T.

Sources: Lin et al., TSM: Temporal Shift Module for Efficient Video Understanding, ICCV 2019, section 3;
Fan et al., More Is Less: Learning Efficient Video Representations by Big-Little Network and Depthwise Temporal
Aggregation, NeurIPS 2019, section 3.2; Wang et al., Non-local Neural Networks, CVPR 2018, section 3.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .non_local import attend


class TemporalModule(nn.Module):
    """Combines the images (N * T, C, H, W) of each clip."""

    @abstractmethod
    def forward(self, images: Tensor, length: int) -> Tensor:
        """Return the images after combining those of each clip, which are `length` consecutive images."""


def as_clips(images: Tensor, length: int) -> Tensor:
    """Return images (N * length, ...), ordered by clip, as clips (N, length, ...)."""
    return images.reshape(-1, length, *images.shape[1:])


def shift(clips: Tensor, frames: int) -> Tensor:
    """Return clips (N, T, ...) shifted by `frames` in time, filled with zeros; 1 puts each image one later."""
    length = clips.shape[1]
    # Nothing of a clip shorter than the shift is left, but its zeros still depend on it, because distributed training
    # needs a gradient for every weight.
    steps = min(abs(frames), length)
    padding = [0, 0] * (clips.ndim - 2)
    if frames >= 0:
        return F.pad(clips[:, : length - steps], [*padding, steps, 0])
    return F.pad(clips[:, steps:], [*padding, 0, steps])


class TemporalShift(TemporalModule):
    """TSM: the first C / `divisor` channels are taken from the next image, as many others from the previous one."""

    def __init__(self, divisor: int = 8) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, images: Tensor, length: int) -> Tensor:
        """Return the images with shifted channels, zeros at the ends of the clip."""
        clips = as_clips(images, length)
        fold = images.shape[1] // self.divisor
        parts = (shift(clips[:, :, :fold], -1), shift(clips[:, :, fold : 2 * fold], 1), clips[:, :, 2 * fold :])
        return torch.cat(parts, dim=2).flatten(0, 1)

    def extra_repr(self) -> str:
        """Return the divisor, for the module's repr."""
        return f"divisor={self.divisor}"


class ChannelWeights(nn.Module):
    """One weight per channel, or without `depthwise` a matrix between all channels; no bias."""

    def __init__(self, channels: int, *, depthwise: bool) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels, 1, groups=channels if depthwise else 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the weighted images (N, C, H, W)."""
        if self.fc1.groups == 1:
            mixed: Tensor = self.fc1(images)
            return mixed
        # A product is many times faster than a depthwise 1x1 convolution.
        return images * self.fc1.weight.view(1, -1, 1, 1).to(images.dtype)


class TemporalAggregation(TemporalModule):
    """TAM: a weighted sum, or maximum, of each image and its neighbours, then a ReLU.

    The depthwise sum equals a depthwise convolution over `frames` x 1 x 1. With ``init="centre"`` it starts as the ReLU
    of the image alone, so that the weights of an image network stay valid; else with ``"random"`` weights. With the
    maximum, neighbours of weight 0 would get no gradient, so they start with half the weight of the image.
    """

    def __init__(
        self, channels: int, *, frames: int = 3, method: str = "sum", depthwise: bool = True, init: str = "centre"
    ) -> None:
        super().__init__()
        self.method = method
        if frames == 3:
            self.prev_se = ChannelWeights(channels, depthwise=depthwise)
            self.curr_se = ChannelWeights(channels, depthwise=depthwise)
            self.next_se = ChannelWeights(channels, depthwise=depthwise)
        else:
            self.blending_layers = nn.ModuleList(ChannelWeights(channels, depthwise=depthwise) for _ in range(frames))
        self.init = init
        self.reset_parameters()

    def weights(self) -> list[ChannelWeights]:
        """Return the weights of an image and its neighbours, from the earliest to the latest."""
        if hasattr(self, "prev_se"):
            return [self.prev_se, self.curr_se, self.next_se]
        return [layer for layer in self.blending_layers if isinstance(layer, ChannelWeights)]

    def reset_parameters(self) -> None:
        """Draw the weights at random, or set them so that the image has the largest weight."""
        weights = self.weights()
        around = 0.5 if self.method == "max" else 0.0
        for index, layer in enumerate(weights):
            weight = layer.fc1.weight
            if self.init == "random":
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
                continue
            nn.init.dirac_(weight, groups=layer.fc1.groups)
            if index != len(weights) // 2:
                with torch.no_grad():
                    weight.mul_(around)

    def forward(self, images: Tensor, length: int) -> Tensor:
        """Return the blended images, with zeros beyond the ends of the clip."""
        weights = self.weights()
        middle = len(weights) // 2
        blended: Tensor | None = None
        for index, layer in enumerate(weights):
            moved = shift(as_clips(layer(images), length), middle - index)
            if blended is None:
                blended = moved
            else:
                blended = torch.maximum(blended, moved) if self.method == "max" else blended + moved
        if blended is None:
            raise RuntimeError("an aggregation needs at least one image")
        return F.relu(blended).flatten(0, 1)


class TemporalPool(TemporalModule):
    """The average or maximum of three neighbouring images; with a stride of 2, for every second image."""

    def __init__(self, method: str, *, stride: int = 1) -> None:
        super().__init__()
        self.method = method
        self.stride = stride

    def forward(self, images: Tensor, length: int) -> Tensor:
        """Return pooled images (N * T', C, H, W), T' = ceil(T / stride); averages include zeros beyond the ends."""
        clips = as_clips(images, length)
        if self.method == "max":
            around = F.max_pool3d(clips.transpose(1, 2), (3, 1, 1), (self.stride, 1, 1), (1, 0, 0)).transpose(1, 2)
        else:
            # torch's average pool refuses clips of fewer than three images.
            around = ((shift(clips, 1) + clips + shift(clips, -1)) / 3)[:, :: self.stride]
        return around.flatten(0, 1)

    def pooled_length(self, length: int) -> int:
        """Return T' for clips of `length` images."""
        return -(-length // self.stride)


class NonLocal(TemporalModule):
    """Attention from every position of every image to every second position, in height and width, of all images.

    It has half the channels inside, and is added to its input. It starts as the identity. See
    :func:`models.layers.non_local.attend` for `kind`. Every second position is a maximum ``"before"`` the convolutions
    of keys and values, which keeps a last odd row or column, or one ``"after"`` them, which does not.
    """

    def __init__(self, channels: int, *, kind: str = "gaussian", pool: str = "before") -> None:
        super().__init__()
        self.kind = kind
        self.pool = pool
        inner = max(channels // 2, 1)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the module as the identity, with nearly uniform attention."""
        for layer in (self.theta, self.phi, self.g, self.out):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.norm.weight)

    def forward(self, images: Tensor, length: int) -> Tensor:
        """Return the images plus the attention over their clip."""

        def rows(maps: Tensor) -> Tensor:
            return as_clips(maps, length).movedim(2, 4).flatten(1, 3)

        if self.pool == "before":
            small = F.max_pool2d(images, 2, ceil_mode=True)
            phi, g = self.phi(small), self.g(small)
        else:
            window = (min(images.shape[2], 2), min(images.shape[3], 2))
            phi, g = F.max_pool2d(self.phi(images), window), F.max_pool2d(self.g(images), window)
        mixed = attend(rows(self.theta(images)), rows(phi), rows(g), self.kind)
        height, width = images.shape[2:]
        maps = mixed.reshape(-1, length, height, width, mixed.shape[2]).movedim(4, 2).flatten(0, 1)
        y: Tensor = images + self.norm(self.out(maps))
        return y
