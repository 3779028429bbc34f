"""The smallest version of every model and a clip that it takes, for checks of what all models share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import models

_SMALL: dict[str, Any] = {"width": 8, "head_width": 8}
_SPECIAL = {"mvit_v2_s": {"table_frames": 8, "table_size": 32}, "x3d": {"head_width": 32}}

DEEP = frozenset(name for name in models.list_models() if "r101" in name or name.endswith("_101")) | {
    "r2plus1d_50",
    "s3d_resnet101",
    "swin3d_b",
    "swin3d_s",
    "x3d_l",
}
"""Models that differ from a quicker sibling in depth alone."""


def tiny(name: str, **options: Any) -> models.VideoModel:
    """Build `name` with few channels and, unless told, four classes."""
    known = models.model_info(name).defaults()
    small = {**_SMALL, **_SPECIAL.get(name.split("_")[0], {}), **_SLOW_STEMS.get(name, {})}
    chosen = {key: value for key, value in small.items() if key in known}
    return models.create_model(name, **{"num_classes": 4, **chosen, **options})


def clips(count: int = 2, frames: int = 8, size: int = 32, channels: int = 3) -> Tensor:
    """Return the same clips (N, C, T, H, W) every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, frames, size, size, generator=generator)
