"""The vision transformer of VideoMAE: joint attention over all tubes of a clip, and their mean as its features.

Sources: Tong et al., VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training,
NeurIPS 2022, section 3 and appendix; Wang et al., VideoMAE V2, CVPR 2023, the same network of these sizes. Names of
parameters are the authors'.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..card import ModelSettings
from ..layers.vit_blocks import TransformerBlock, drop_rates, init_linear
from ..video_model import VideoModel, make_classifier

_TUBE = (2, 16, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoViTConfig:
    """The configuration of the network; its card lists the accepted values."""

    depth: int
    width: int
    head_width: int
    """Channels of an attention head; divides `width`."""
    table_frames: int
    table_size: int
    """Frames and pixels of the clips that the positions are numbered in; for other clips they are interpolated."""
    stochastic_depth: float
    """Probability of leaving out the last block's branches; it grows linearly from 0 over the blocks."""
    attention_dropout: float


class VideoViT(VideoModel):
    """The network; takes any clip of two frames and 16 pixels or more."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = VideoViTConfig(**arguments)
        self.patch_embed = nn.Sequential(
            OrderedDict[str, nn.Module](proj=nn.Conv3d(settings.in_channels, config.width, _TUBE, _TUBE))
        )
        places = (config.table_frames // 2, config.table_size // 16, config.table_size // 16)
        self.register_buffer("positions", sine_positions(config.width, places), persistent=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.width,
                config.width // config.head_width,
                bias="qv",
                drop=drop,
                attention_dropout=config.attention_dropout,
            )
            for drop in drop_rates(config.stochastic_depth, config.depth)
        )
        self.fc_norm = nn.LayerNorm(config.width, eps=1e-6)
        init_linear(self)
        self.head = make_classifier(config.width, settings.num_classes)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the embedding of tubes, then each block."""
        return (("patch_embed",), *((f"blocks.{number}",) for number in range(len(self.blocks))))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the normed average of all positions."""
        x = self.patch_embed(clip)
        x = x + resized_positions(self.get_buffer("positions"), tuple(x.shape[2:]))
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.fc_norm(x.mean(1))
        return y


def sine_positions(channels: int, places: tuple[int, int, int]) -> Tensor:
    """Return the sines and cosines (1, channels, T, H, W) of the places, which are numbered by time, row and column.

    Source: Vaswani et al., Attention Is All You Need, NIPS 2017, section 3.5; sines are in the even channels.
    """
    frames, height, width = places
    numbers = torch.arange(frames * height * width, dtype=torch.float64)
    exponents = torch.arange(channels, dtype=torch.float64).div(2, rounding_mode="floor") * 2 / channels
    angles = numbers / 10000 ** exponents[:, None]
    table = torch.where((torch.arange(channels) % 2 == 0)[:, None], angles.sin(), angles.cos())
    return table.float().view(1, channels, *places)


def resized_positions(table: Tensor, places: tuple[int, ...]) -> Tensor:
    """Return a table (1, C, T, H, W) of positions, interpolated linearly to `places` (T', H', W') if they differ."""
    if tuple(table.shape[2:]) == places:
        return table
    return F.interpolate(table, places, mode="trilinear", align_corners=False)
