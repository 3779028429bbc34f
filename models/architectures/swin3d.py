"""Video Swin Transformer: attention inside windows of space and time that shift from block to block.

Source: Liu et al., Video Swin Transformer, CVPR 2022, section 3. The modules are torchvision's, under its names, so
that its weights load unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision.models.video import swin_transformer

from ..card import ModelSettings
from ..video_model import VideoModel, make_classifier

_PATCH = (2, 4, 4)
_WINDOW = (8, 7, 7)


@dataclass(frozen=True, kw_only=True, slots=True)
class Swin3DConfig:
    """The configuration of the network; its card lists the accepted values."""

    third_depth: int
    """Blocks of the third stage; the others have two each."""
    width: int
    """Channels of the first stage, doubled from stage to stage; a multiple of `head_width`."""
    head_width: int
    """Channels of an attention head."""
    stochastic_depth: float
    """Probability of leaving out the last block's branches; it grows linearly from 0 over the blocks."""
    attention_dropout: float


class Swin3D(VideoModel):
    """The network; takes any clip of two frames and 4 pixels or more."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        # The card has already checked types and values.
        arguments: dict[str, Any] = settings.arguments()
        self.config = config = Swin3DConfig(**arguments)
        net = swin_transformer.SwinTransformer3d(
            patch_size=list(_PATCH),
            embed_dim=config.width,
            depths=[2, 2, config.third_depth, 2],
            num_heads=[config.width // config.head_width * 2**stage for stage in range(4)],
            window_size=list(_WINDOW),
            attention_dropout=config.attention_dropout,
            stochastic_depth_prob=config.stochastic_depth,
            num_classes=settings.num_classes,
        )
        self.patch_embed = net.patch_embed
        if settings.in_channels != 3:
            self.patch_embed.proj = nn.Conv3d(settings.in_channels, config.width, _PATCH, _PATCH)
        self.features = net.features
        self.norm = net.norm
        self.head = make_classifier(net.num_features, settings.num_classes)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the last positions' average over time and space."""
        # Positions come as (N, T / 2, H / 32, W / 32, channels).
        x: Tensor = self.norm(self.features(self.patch_embed(clip)))
        return x.mean((1, 2, 3))
