"""MViT, both versions: attention over space and time, with positions that are pooled from stage to stage.

Sources: Fan et al., Multiscale Vision Transformers, ICCV 2021, table 2; Li et al., MViTv2: Improved Multiscale Vision
Transformers, CVPR 2022, table 1; with the other `widen`, Wei et al., Masked Feature Prediction, CVPR 2022. The modules
are torchvision's, under its names, so that its weights load unchanged; here they take clips of any size.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video import mvit

from ..card import ModelSettings
from ..video_model import VideoModel, make_classifier

# Per stage: attention heads, and by how much keys and values are pooled in space.
_STAGES = ((1, 8), (2, 4), (4, 2), (8, 1))
# Blocks of each stage, by the number of all.
_DEPTHS = {16: (1, 2, 11, 2), 24: (2, 3, 16, 3)}


@dataclass(frozen=True, kw_only=True, slots=True)
class MViTConfig:
    """The configuration of the network; its card lists the accepted values."""

    version: int
    """1: positions are learned for places and frames; 2: positions are relative, and all queries are convolved."""
    depth: int
    width: int
    """Channels of the first stage and of every attention head."""
    table_frames: int
    table_size: int
    """Frames and pixels for which tables of positions are made; for other clips they are interpolated."""
    stochastic_depth: float
    """Probability of leaving out the last block's branches; it grows linearly from 0 over the blocks."""
    attention_dropout: float
    widen: str = "mlp"
    """What widens the channels for a stage: ``"mlp"`` of the last layer before it, as in version 1 and in MaskFeat, or
    its first ``"attention"``."""


class MViT(VideoModel):
    """The network; takes any clip of two frames and 32 pixels or more."""

    classifier_name = "head.1"
    table_names = ("pos_encoding.", ".rel_pos_")

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = MViTConfig(**arguments)
        net = mvit.MViT(
            spatial_size=(config.table_size, config.table_size),
            temporal_size=config.table_frames,
            block_setting=_blocks(config),
            residual_pool=config.version == 2,
            residual_with_cls_embed=False,
            rel_pos_embed=config.version == 2,
            proj_after_attn=config.widen == "attention",
            attention_dropout=config.attention_dropout,
            stochastic_depth_prob=config.stochastic_depth,
            num_classes=settings.num_classes,
        )
        self.conv_proj = net.conv_proj
        if settings.in_channels != 3:
            self.conv_proj = nn.Conv3d(settings.in_channels, config.width, (3, 7, 7), (2, 4, 4), (1, 3, 3))
        self.pos_encoding = net.pos_encoding
        self.blocks = net.blocks
        self.norm = net.norm
        features = config.width * _STAGES[-1][0]
        self.head = nn.Sequential(OrderedDict[str, nn.Module]({"1": make_classifier(features, settings.num_classes)}))

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the embedding of patches, then each block."""
        blocks = ((f"blocks.{number}",) for number in range(len(self.blocks)))
        return (("conv_proj", "pos_encoding"), *blocks)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the class token of the last block."""
        maps = self.conv_proj(clip)
        thw = tuple(maps.shape[2:])
        x = self._embedded(maps)
        for block in self.blocks:
            x, thw = block(x, thw)
        token: Tensor = self.norm(x)[:, 0]
        return token

    def _embedded(self, maps: Tensor) -> Tensor:
        """Return the class token and the positions (N, 1 + T * H * W, C) of maps (N, C, T, H, W)."""
        if self.config.version == 2:
            embedded: Tensor = self.pos_encoding(maps.flatten(2).transpose(1, 2))
            return embedded
        encoding = self.pos_encoding
        spatial = encoding.get_parameter("spatial_pos").T.unflatten(1, encoding.spatial_size).unsqueeze(0)
        temporal = encoding.get_parameter("temporal_pos").T.unsqueeze(0)
        if spatial.shape[2:] != maps.shape[3:]:
            spatial = F.interpolate(spatial, tuple(maps.shape[3:]), mode="bilinear", align_corners=False)
        if temporal.shape[2] != maps.shape[2]:
            temporal = F.interpolate(temporal, maps.shape[2], mode="linear", align_corners=False)
        positions = maps + spatial.unsqueeze(2) + temporal[..., None, None]
        token = (encoding.class_token + encoding.get_parameter("class_pos")).expand(maps.shape[0], 1, -1)
        return torch.cat((token, positions.flatten(2).transpose(1, 2)), 1)


def _blocks(config: MViTConfig) -> list[mvit.MSBlockConfig]:
    """Return torchvision's settings of all blocks."""
    of_blocks = [
        (heads, pooled, number == 0 and stage > 0)
        for stage, (heads, pooled) in enumerate(_STAGES)
        for number in range(_DEPTHS[config.depth][stage])
    ]
    later = [heads for heads, _, _ in of_blocks[1:]] + [_STAGES[-1][0]]
    settings = []
    channels = config.width
    for (heads, pooled, first), next_heads in zip(of_blocks, later, strict=True):
        widened = config.width * (heads if config.widen == "attention" else next_heads)
        # The first block of each further stage pools the queries; in version 2 all others convolve them, too.
        stride = 2 if first else 1
        pools = first or config.version == 2
        settings.append(
            mvit.MSBlockConfig(
                num_heads=heads,
                input_channels=channels,
                output_channels=widened,
                kernel_q=[3, 3, 3] if pools else [],
                kernel_kv=[3, 3, 3],
                stride_q=[1, stride, stride] if pools else [],
                stride_kv=[1, pooled, pooled],
            )
        )
        channels = widened
    return settings
