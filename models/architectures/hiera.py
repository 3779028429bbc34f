"""Hiera: a transformer of four stages whose early blocks attend inside small squares of one frame.

Source: Ryali et al., Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles, ICML 2023, section 3 and
table 1. Names of parameters are the authors'.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from ..card import ModelSettings
from ..layers.vit_blocks import FeedForward, drop_rates
from ..video_model import VideoModel, make_classifier

_PATCH_KERNEL, _PATCH_STRIDE, _PATCH_PADDING = (3, 7, 7), (2, 4, 4), (1, 3, 3)
# Positions a side of a mask unit in the first stage, which is what pre-training masks; each stage halves it.
_UNIT = 8
# Blocks of each stage, by the number of all.
_DEPTHS = {24: (2, 3, 16, 3), 48: (2, 6, 36, 4)}


@dataclass(frozen=True, kw_only=True, slots=True)
class HieraConfig:
    """The configuration of the network; its card lists the accepted values."""

    depth: int
    width: int
    """Channels of the first stage, doubled from stage to stage."""
    heads: int
    """Attention heads of the first stage, doubled from stage to stage; divides `width`."""
    table_frames: int
    table_size: int
    """Frames and pixels of the clips that positions are learned for; for other clips they are interpolated."""
    stochastic_depth: float
    """Probability of leaving out the last block's branches; it grows linearly from 0 over the blocks."""


class UnitAttention(nn.Module):
    """Attention inside squares of `unit` x `unit` positions of one frame, or, with 0, among all positions of a clip.

    With `pool`, each 2 x 2 queries become their maximum, so that the result has half the height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, *, unit: int, pool: bool) -> None:
        super().__init__()
        self.heads = heads
        self.unit = unit
        self.pool = pool
        self.qkv = nn.Linear(in_channels, 3 * out_channels)
        self.proj = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, H, W, in) to (N, T, H', W', out)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        unit = self.unit
        if self.pool:
            query, unit = halved(query), unit // 2
        sequences = (self._sequences(query, unit), self._sequences(key, self.unit), self._sequences(value, self.unit))
        mixed = F.scaled_dot_product_attention(*sequences).transpose(1, 2).flatten(2)
        count, frames, height, width, channels = query.shape
        if unit:
            squares = (count, frames, height // unit, width // unit, unit, unit, channels)
            mixed = mixed.view(squares).transpose(3, 4)
        y: Tensor = self.proj(mixed.reshape(count, frames, height, width, channels))
        return y

    def _sequences(self, x: Tensor, unit: int) -> Tensor:
        """Return the positions that attend to each other, (sequences, heads, positions, channels of a head)."""
        if unit:
            squares = x.unflatten(3, (-1, unit)).unflatten(2, (-1, unit)).transpose(3, 4)
            x = squares.flatten(4, 5).flatten(0, 3)
        else:
            x = x.flatten(1, 3)
        heads: Tensor = x.unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)


class HieraBlock(nn.Module):
    """Attention, which may halve height and width and widen the channels, and a feed-forward layer."""

    def __init__(self, in_channels: int, out_channels: int, heads: int, *, unit: int, pool: bool, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_channels, eps=1e-6)
        self.attn = UnitAttention(in_channels, out_channels, heads, unit=unit, pool=pool)
        self.norm2 = nn.LayerNorm(out_channels, eps=1e-6)
        self.mlp = FeedForward(out_channels)
        self.proj = nn.Linear(in_channels, out_channels) if pool else None
        self.drop_path = StochasticDepth(drop, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, H, W, in) to (N, T, H', W', out)."""
        normed = self.norm1(x)
        shortcut = x if self.proj is None else halved(self.proj(normed))
        x = shortcut + self.drop_path(self.attn(normed))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


class Hiera(VideoModel):
    """The network; takes any clip of two frames and 32 pixels or more, and of its image whole squares of 32 pixels."""

    classifier_name = "head.projection"
    table_names = ("pos_embed_spatial", "pos_embed_temporal")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = HieraConfig(**arguments)
        width, side = config.width, config.table_size // _PATCH_STRIDE[1]
        self.patch_embed = nn.Sequential(
            OrderedDict[str, nn.Module](
                proj=nn.Conv3d(settings.in_channels, width, _PATCH_KERNEL, _PATCH_STRIDE, _PATCH_PADDING)
            )
        )
        self.pos_embed_spatial = nn.Parameter(torch.empty(1, side * side, width))
        self.pos_embed_temporal = nn.Parameter(torch.empty(1, config.table_frames // _PATCH_STRIDE[0], width))
        self.blocks = nn.ModuleList(_blocks(config))
        self.norm = nn.LayerNorm(8 * width, eps=1e-6)
        self._initialise()
        self.head = nn.Sequential(
            OrderedDict[str, nn.Module](projection=make_classifier(8 * width, settings.num_classes))
        )

    def _initialise(self) -> None:
        """Draw weights and positions with a deviation of 0.02, which is also what biases start as."""
        for table in (self.pos_embed_spatial, self.pos_embed_temporal):
            nn.init.trunc_normal_(table, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear | nn.LayerNorm):
                nn.init.constant_(module.bias, 0.02)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the embedding of patches and positions, then each block."""
        blocks = ((f"blocks.{number}",) for number in range(len(self.blocks)))
        return (("patch_embed", *self.table_names), *blocks)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the normed average of all positions."""
        maps = self.patch_embed(clip)
        maps = maps + self._positions(maps.shape[2:])
        height, width = (size // _UNIT * _UNIT for size in maps.shape[3:])
        x = maps[:, :, :, :height, :width].permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.norm(x.mean((1, 2, 3)))
        return y

    def _positions(self, places: torch.Size) -> Tensor:
        """Return the embeddings (1, C, T, H, W) of `places`."""
        side = self.config.table_size // _PATCH_STRIDE[1]
        spatial: Tensor = self.pos_embed_spatial.transpose(1, 2).unflatten(2, (side, side))
        temporal = self.pos_embed_temporal.transpose(1, 2)
        if tuple(places[1:]) != (side, side):
            spatial = F.interpolate(spatial, tuple(places[1:]), mode="bilinear", align_corners=False)
        if places[0] != temporal.shape[2]:
            temporal = F.interpolate(temporal, places[0], mode="linear", align_corners=False)
        return spatial.unsqueeze(2) + temporal[..., None, None]


def halved(x: Tensor) -> Tensor:
    """Return the maxima of each 2 x 2 positions of (N, T, H, W, C)."""
    y: Tensor = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return y.amax((3, 5))


def _blocks(config: HieraConfig) -> list[HieraBlock]:
    drops = iter(drop_rates(config.stochastic_depth, config.depth))
    channels, blocks = config.width, []
    for stage, count in enumerate(_DEPTHS[config.depth]):
        out = config.width * 2**stage
        for number in range(count):
            pool = number == 0 and stage > 0
            # The first block of a stage attends as the stage before did; from the third on, among all positions.
            seen = stage - 1 if pool else stage
            blocks.append(
                HieraBlock(
                    channels,
                    out,
                    config.heads * 2**stage,
                    unit=_UNIT // 2**seen if seen < 2 else 0,
                    pool=pool,
                    drop=next(drops),
                )
            )
            channels = out
    return blocks
