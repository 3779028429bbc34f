"""The smallest version of every model and a clip that it takes, for checks of what all models share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models

_SMALL: dict[str, Any] = {"width": 8, "head_width": 8}
_SPECIAL = {
    "MViT": {"table_frames": 8, "table_size": 32},
    "MViT v2": {"table_frames": 8, "table_size": 32},
    "C3D": {"hidden_width": 32},
    # A fast path of one channel would be dead as soon as its ReLU is.
    "SlowFast": {"beta_inv": 2},
    "Hiera": {"width": 8, "table_frames": 8, "table_size": 32},
    "TimeSformer": {"width": 16, "table_size": 32},
    "VideoMAE": {"width": 16, "table_frames": 8, "table_size": 32},
    "X3D": {"head_width": 32},
}

_OF_101 = {name for name in models.list_models() if "r101" in name or "_101" in name}
DEEP = frozenset(_OF_101 - {"csn_r101"}) | {
    "csn_r152",
    "csn_r152_ip",
    "hiera_l",
    "mvit_v2_b",
    "r2plus1d_50",
    "s3d_resnet101",
    "swin3d_b",
    "swin3d_s",
    "videomae_vit_l",
    "x3d_l",
}
"""Models that differ from a quicker sibling in depth alone, and take long."""

_IMAGE_BUILDERS = (
    *("resnet2d", "inception_v1", "inception_v3", "vgg", "blvnet", "trn"),
    *("stmulnet", "two_stream", "image_backbone"),
)


def _module_of(name: str) -> str:
    return models.model_info(name).builder.partition(":")[0].rpartition(".")[2]


IMAGE_BASED = frozenset(name for name in models.list_models() if _module_of(name) in _IMAGE_BUILDERS)
"""Models of 2-D convolutions, some of two clips; `test_every_image_model` checks them at sizes that they take."""

OF_FIXED_SIZE = frozenset({"hf_video"})
"""Models that take clips of one size alone, which a test of many sizes cannot use; they have tests of their own."""

SIBLINGS = DEEP | {
    "mvit_v1_b_32x3",
    "c2d_r50",
    "csn_r101",
    "i3d_ibm",
    "r2plus1d_34",
    "r2plus1d_34_hara",
    "r2plus1d_50_hara",
    "r3d_18_hara",
    "r3d_34",
    "r3d_34_hara",
    "r3d_50",
    "r3d_50_hara",
    "s3d",
    "s3d_ibm",
    "s3d_resnet34",
    "s3d_resnet50",
    "slow_r50",
    "slowfast_r50_4x16",
    "slowfast_r50_8x8",
    "videomae_vit_b",
    "x3d_m",
    "x3d_xs",
}
"""Models whose code is all run by a quicker sibling: costly checks leave them to the slow tests."""

COSTLY = SIBLINGS | {"hiera_b", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "timesformer_b", "x3d_s"}
"""Models with code of their own that take seconds to train or to compile."""


def tiny(name: str, **options: Any) -> models.VideoModel:
    """Return `name` built with few channels and, by default, four classes."""
    info = models.model_info(name)
    known = info.defaults()
    small = {**_SMALL, **_SPECIAL.get(info.family, {})}
    chosen = {key: value for key, value in small.items() if key in known}
    return models.create_model(name, **{"num_classes": 4, **chosen, **options})


def plain(name: str) -> dict[str, Any]:
    """Return options that leave no chance in a model's training."""
    known = models.model_info(name).defaults()
    return {"dropout": 0.0} | ({"stochastic_depth": 0.0} if "stochastic_depth" in known else {})


def clips(count: int = 2, frames: int = 8, size: int = 32, channels: int = 3) -> Tensor:
    """Return the same clips (N, C, T, H, W) every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, frames, size, size, generator=generator)


def every(*, slow: frozenset[str] = SIBLINGS, but: frozenset[str] = frozenset()) -> list[Any]:
    """Return the names of all models as parameters of a test, without `but`; `slow` ones are marked so."""
    names = [name for name in models.list_models() if name not in but | IMAGE_BASED | OF_FIXED_SIZE]
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def open_branches(model: nn.Module) -> None:
    """Open what starts closed: zero scales of batch norms, or zero layers, would hide whole branches."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, nn.BatchNorm3d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
