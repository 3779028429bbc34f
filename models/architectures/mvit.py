"""MViT v2: attention over space and time, with positions that are pooled from stage to stage.

Source: Li et al., MViTv2: Improved Multiscale Vision Transformers, CVPR 2022, table 1. The modules are torchvision's,
under its names, so that its weights load unchanged; here they take clips of any size.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision.models.video import mvit

from ..card import ModelSettings
from ..video_model import VideoModel, make_classifier

# Per stage: blocks; attention heads; by how much keys and values are pooled in space.
_STAGES = ((1, 1, 8), (2, 2, 4), (11, 4, 2), (2, 8, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class MViTConfig:
    """The configuration of the network; its card lists the accepted values."""

    width: int
    """Channels of the first stage and of every attention head."""
    table_frames: int
    table_size: int
    """Frames and pixels for which tables of relative positions are made; for other clips they are interpolated."""
    stochastic_depth: float
    """Probability of leaving out the last block's branches; it grows linearly from 0 over the blocks."""
    attention_dropout: float


class MViT(VideoModel):
    """The network; takes any clip of two frames and 32 pixels or more."""

    classifier_name = "head.1"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = MViTConfig(**arguments)
        net = mvit.MViT(
            spatial_size=(config.table_size, config.table_size),
            temporal_size=config.table_frames,
            block_setting=_blocks(config.width),
            residual_pool=True,
            residual_with_cls_embed=False,
            rel_pos_embed=True,
            proj_after_attn=True,
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
        features = config.width * _STAGES[-1][1]
        self.head = nn.Sequential(OrderedDict[str, nn.Module]({"1": make_classifier(features, settings.num_classes)}))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the class token of the last block."""
        x = self.conv_proj(clip)
        thw = tuple(x.shape[2:])
        x = self.pos_encoding(x.flatten(2).transpose(1, 2))
        for block in self.blocks:
            x, thw = block(x, thw)
        token: Tensor = self.norm(x)[:, 0]
        return token


def _blocks(width: int) -> list[mvit.MSBlockConfig]:
    """Return torchvision's settings of all blocks."""
    settings = []
    channels = width
    for stage, (count, heads, pooled) in enumerate(_STAGES):
        for number in range(count):
            # A stage's first block widens inside its attention and pools the queries.
            stride = 2 if number == 0 and stage > 0 else 1
            settings.append(
                mvit.MSBlockConfig(
                    num_heads=heads,
                    input_channels=channels,
                    output_channels=width * heads,
                    kernel_q=[3, 3, 3],
                    kernel_kv=[3, 3, 3],
                    stride_q=[1, stride, stride],
                    stride_kv=[1, pooled, pooled],
                )
            )
            channels = width * heads
    return settings
