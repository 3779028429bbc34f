"""Video Swin Transformer: attention inside windows of space and time that shift from block to block.

Source: Liu et al., Video Swin Transformer, CVPR 2022, section 3. The modules are torchvision's, under its names, so
that its weights load unchanged.
"""

from __future__ import annotations

import re
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

    unused_image_names = ("relative_position_index", "attn_mask")
    table_names = ("relative_position_bias_table",)

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

    @property
    def layer_names(self) -> tuple[tuple[str, ...], ...]:
        """Return the embedding of patches, then each block."""
        # The merging of patches after a stage belongs to the first block that sees its result.
        layers: list[tuple[str, ...]] = [("patch_embed",)]
        merging: tuple[str, ...] = ()
        for number, part in self.features.named_children():
            if isinstance(part, swin_transformer.PatchMerging):
                merging = (f"features.{number}",)
                continue
            for block, _ in part.named_children():
                layers.append((*merging, f"features.{number}.{block}"))
                merging = ()
        return tuple(layers)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Return (N, num_features), the last positions' average over time and space."""
        # Positions come as (N, T / 2, H / 32, W / 32, channels).
        x: Tensor = self.norm(self.features(self.patch_embed(clip)))
        return x.mean((1, 2, 3))

    def image_names(self) -> dict[str, str]:
        """Return the names in torchvision's Swin of images, whose first feature is the embedding of patches."""
        names = {}
        for ours in self.state_dict():
            if ours.startswith("head.") or ours.endswith(self.unused_image_names):
                continue
            theirs = re.sub(r"^features\.(\d+)\.", lambda match: f"features.{int(match[1]) + 1}.", ours)
            theirs = theirs.replace("patch_embed.proj.", "features.0.0.").replace("patch_embed.norm.", "features.0.2.")
            names[ours] = theirs
        return names

    def from_image(self, name: str, tensor: Tensor) -> Tensor:
        """Return the tensor; a table of relative positions is repeated for all distances in time (section 3.4)."""
        if name.endswith("relative_position_bias_table"):
            return tensor.repeat(2 * _WINDOW[0] - 1, 1)
        return tensor
