"""Spatiotemporal multiplier network: an appearance stream that is gated by a motion stream.

Source: Feichtenhofer et al., Spatiotemporal Multiplier Networks for Video Action Recognition, CVPR 2017,
sections 3.1 (gates), 3.2 (temporal convolutions initialised as identities) and 3.3. Names of a stream's
parameters are those of torchvision's ``ResNet``, with ``temporal_conv`` in the blocks with a temporal convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..card import ModelSettings
from ..layers.temporal_modules import TemporalModule, as_clips
from ..video_model import init_convolutions, make_classifier
from .frame_model import fold_frames
from .resnet2d import ImageBlock, resnet_stages, resnet_stem
from .two_stream import TwoStreamModel

_TAPS = {"centre": (0.0, 1.0, 0.0), "difference": (-1.0, 3.0, -1.0), "average": (1 / 3, 1 / 3, 1 / 3)}


@dataclass(frozen=True, kw_only=True, slots=True)
class StMulNetConfig:
    """The configuration of one of these networks; its card lists the accepted values."""

    depth: int
    width: int
    flow_channels: int
    gate: str
    """``"mul"``, ``"add"`` or ``"none"``: how motion enters the appearance stream's residual branch."""
    gate_block: int
    """The gated block of every stage, counted from 0."""
    gate_preact: bool
    """Gate the appearance maps from before the ReLU that ends their block."""
    temporal_block: int
    """The block of every stage, counted from 0, that has the temporal convolution."""
    temporal_init: str
    temporal_norm: bool
    """A batch norm after the temporal convolution, which then has no bias."""
    pool_order: str
    """``"time_first"`` or ``"space_first"``: the maximum over time, then the average over space, or the reverse."""
    head_relu: bool
    stem_bias: bool
    spatial_loss_weight: float


class TemporalConv(TemporalModule):
    """A convolution over three images, from all channels to all, that starts as the same filter for each channel."""

    def __init__(self, channels: int, *, init: str, norm: bool) -> None:
        super().__init__()
        self.init = init
        # A 2-D convolution over (T, H * W), so that its kernel has as many axes as all others.
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=not norm)
        self.bn = nn.BatchNorm2d(channels) if norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every channel to the filter over time of the same channel."""
        with torch.no_grad():
            self.conv.weight.zero_()
            channels = range(self.conv.out_channels)
            self.conv.weight[channels, channels, :, 0] = torch.tensor(_TAPS[self.init])
            if self.conv.bias is not None:
                self.conv.bias.zero_()

    def forward(self, images: Tensor, length: int) -> Tensor:
        """Return images (N * length, C, H, W) convolved over time, with zeros beyond the ends of the clip."""
        height, width = images.shape[2:]
        maps = self.conv(as_clips(images, length).transpose(1, 2).flatten(3)).transpose(1, 2)
        out: Tensor = maps.reshape(*maps.shape[:3], height, width).flatten(0, 1)
        return out if self.bn is None else self.bn(out)


class Stream(nn.Module):
    """A residual network of images with a temporal convolution in every stage."""

    def __init__(self, in_channels: int, num_classes: int, config: StMulNetConfig) -> None:
        super().__init__()
        self.conv1 = resnet_stem(in_channels, config.width, bias=config.stem_bias)
        self.bn1 = nn.BatchNorm2d(config.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages = resnet_stages(config.depth, config.width)
        init_convolutions(self)
        for stage in stages:
            block = stage[config.temporal_block]
            if isinstance(block, ImageBlock):
                block.temporal_conv = TemporalConv(
                    block.inner_channels, init=config.temporal_init, norm=config.temporal_norm
                )
        features = config.width * 8 * type(block).expansion if isinstance(block, ImageBlock) else 0
        self.fc = make_classifier(features, num_classes)

    def start(self, clip: Tensor) -> Tensor:
        """Return the images (N * T, width, H / 4, W / 4) that the first stage takes."""
        maps: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(fold_frames(clip)))))
        return maps

    def blocks(self) -> list[tuple[int, ImageBlock]]:
        """Return all blocks in order, each with its index in its stage."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return [
            (number, block) for stage in stages for number, block in enumerate(stage) if isinstance(block, ImageBlock)
        ]


class StMulNet(TwoStreamModel):
    """The two streams: called with (rgb, flow), it returns the mean of their logits.

    Both clips have the same frames and sizes; flow has the stacked channels (u, v) of neighbouring pairs.
    Motion enters the appearance stream only; gradients reach both.
    """

    streams = ("spatial", "temporal")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = StMulNetConfig(**arguments)
        self.spatial = Stream(settings.in_channels, settings.num_classes, config)
        self.temporal = Stream(config.flow_channels, settings.num_classes, config)

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of both streams' classifiers."""
        return ("spatial.fc", "temporal.fc")

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the stems and the stages of both streams."""
        parts = (("conv1", "bn1"), *((f"layer{number}",) for number in range(1, 5)))
        return tuple(tuple(f"{stream}.{part}" for stream in self.streams for part in layer) for layer in parts)

    def stream_features(self, clips: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the pooled vectors (N, features) of the spatial and the temporal stream."""
        rgb, flow = clips
        length = rgb.shape[2]
        still, motion = self._run(self.spatial.start(rgb), self.temporal.start(flow), length)
        return self._pooled(still, length), self._pooled(motion, length)

    def stream_logits(self, clips: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (N, num_classes) of the spatial and the temporal stream."""
        self.check_input(clips)
        still, motion = self.stream_features(clips)
        spatial: Tensor = self.spatial.fc(self.dropout(still))
        temporal: Tensor = self.temporal.fc(self.dropout(motion))
        return (spatial.relu(), temporal.relu()) if self.config.head_relu else (spatial, temporal)

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean of the streams' logits."""
        return (first + second) / 2

    def training_loss(
        self,
        clip: Tensor | tuple[Tensor, Tensor],
        targets: Tensor,
        criterion: Callable[[Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return `spatial_loss_weight` times the spatial stream's loss plus the other's, and the fused logits."""
        spatial, temporal = self.stream_logits(self.both(clip))
        loss = self.config.spatial_loss_weight * criterion(spatial, targets) + criterion(temporal, targets)
        return loss, self.fuse(spatial, temporal)

    def image_names(self) -> dict[str, str]:
        """Return the names in torchvision's ResNet of the same depth, for both streams.

        Temporal convolutions, and the bias of the first convolution (which starts at zero), have no such name.
        """
        names = {}
        for ours in self.state_dict():
            theirs = ours.partition(".")[2]
            if not theirs.startswith(("fc.", "conv1.bias")) and ".temporal_conv." not in theirs:
                names[ours] = theirs
        return names

    def _run(self, still: Tensor, motion: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return the images of both streams after all stages.

        Between blocks the maps are kept from before the block's last ReLU, because the gate may need them so. The maps
        of the stem have passed their ReLU already; another ReLU does not change them.
        """
        for (number, ours), (_, theirs) in zip(self.spatial.blocks(), self.temporal.blocks(), strict=True):
            rectified, moving = still.relu(), motion.relu()
            seen = rectified
            if number == self.config.gate_block and self.config.gate != "none":
                gated = still if self.config.gate_preact else rectified
                seen = gated * moving if self.config.gate == "mul" else gated + moving
            still = ours.branch(seen, length) + ours.shortcut(rectified)
            motion = theirs.branch(moving, length) + theirs.shortcut(moving)
        return still.relu(), motion.relu()

    def _pooled(self, images: Tensor, length: int) -> Tensor:
        clips = as_clips(images, length)
        if self.config.pool_order == "time_first":
            return clips.amax(1).mean((2, 3))
        return clips.mean((3, 4)).amax(1)
