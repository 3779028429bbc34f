"""TimeSformer: in each block, every patch first attends to its place in all frames, then to its own frame.

Source: Bertasius et al., Is Space-Time Attention All You Need for Video Understanding?, ICML 2021, section 3 ("divided
space-time attention"). Names of parameters are the authors'; the embedding of patches is a convolution over one frame.
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
from ..layers.vit_blocks import Attention, FeedForward, drop_rates, init_linear
from ..video_model import VideoModel, make_classifier

_PATCH = (1, 16, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSformerConfig:
    """The configuration of the network; its card lists the accepted values."""

    depth: int
    width: int
    head_width: int
    """Channels of an attention head; divides `width`."""
    table_frames: int
    table_size: int
    """Frames and pixels of the clips that positions are learned for; others take the nearest position."""
    stochastic_depth: float
    """Probability of leaving out the last block's branches; it grows linearly from 0 over the blocks."""
    attention_dropout: float


class DividedBlock(nn.Module):
    """Attention over time, attention over space, and a feed-forward layer, each added to its input."""

    def __init__(self, channels: int, heads: int, *, drop: float, attention_dropout: float) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.temporal_attn = Attention(channels, heads, dropout=attention_dropout)
        self.temporal_fc = nn.Linear(channels, channels)
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads, dropout=attention_dropout)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = FeedForward(channels)
        self.drop_path = StochasticDepth(drop, "row")

    def forward(self, token: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Map the class token (N, 1, C) and the patches (N, places, T, C) of clips to the same shapes."""
        count, places, frames, channels = patches.shape
        along = patches.flatten(0, 1)
        moved = self.drop_path(self.temporal_attn(self.temporal_norm1(along)))
        patches = patches + self.temporal_fc(moved).view_as(patches)
        of_frames = torch.cat((token.expand(-1, frames, -1).unsqueeze(2), patches.transpose(1, 2)), 2)
        seen = self.drop_path(self.attn(self.norm1(of_frames.flatten(0, 1))))
        seen = seen.view(count, frames, 1 + places, channels)
        # Every frame has its own result for the one class token: their mean.
        token = token + seen[:, :, 0].mean(1, keepdim=True)
        patches = patches + seen[:, :, 1:].transpose(1, 2)
        x = torch.cat((token, patches.flatten(1, 2)), 1)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x[:, :1], x[:, 1:].reshape(patches.shape)


class TimeSformer(VideoModel):
    """The network; takes any clip of 16 pixels or more."""

    table_names = ("cls_token", "pos_embed", "time_embed")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = TimeSformerConfig(**arguments)
        width, side = config.width, config.table_size // _PATCH[1]
        self.patch_embed = nn.Sequential(
            OrderedDict[str, nn.Module](proj=nn.Conv3d(settings.in_channels, width, _PATCH, _PATCH))
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + side * side, width))
        self.time_embed = nn.Parameter(torch.zeros(1, config.table_frames, width))
        self.blocks = nn.ModuleList(
            DividedBlock(width, width // config.head_width, drop=drop, attention_dropout=config.attention_dropout)
            for drop in drop_rates(config.stochastic_depth, config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self._initialise()
        self.head = make_classifier(width, settings.num_classes)

    def _initialise(self) -> None:
        """Start as the transformer of images, frame by frame: what attention over time adds is zero."""
        init_linear(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for name, module in self.named_modules():
            if name.endswith("temporal_fc") and isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the embedding of patches and positions, then each block."""
        blocks = ((f"blocks.{number}",) for number in range(len(self.blocks)))
        return (("patch_embed", *self.table_names), *blocks)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the class token of the last block."""
        maps = self.patch_embed(clip)
        patches = maps + self._places(maps.shape[3:]) + self._times(maps.shape[2])
        patches = patches.flatten(3).permute(0, 3, 2, 1)
        token = (self.cls_token + self.pos_embed[:, :1]).expand(clip.shape[0], -1, -1)
        for block in self.blocks:
            token, patches = block(token, patches)
        y: Tensor = self.norm(token)[:, 0]
        return y

    def _places(self, size: torch.Size) -> Tensor:
        """Return the embeddings (1, C, 1, H, W) of the places in a frame of H x W patches."""
        side = self.config.table_size // _PATCH[1]
        table: Tensor = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        if tuple(size) != (side, side):
            table = F.interpolate(table, tuple(size), mode="nearest")
        return table.unsqueeze(2)

    def _times(self, frames: int) -> Tensor:
        """Return the embeddings (1, C, T, 1, 1) of `frames` frames."""
        table: Tensor = self.time_embed.transpose(1, 2)
        if frames != table.shape[2]:
            table = F.interpolate(table, frames, mode="nearest")
        return table.unsqueeze(3).unsqueeze(4)
