"""Sizes known to the last parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import models

SEED_000: dict[str, Any] = {"lateral_norm": False, "head_bias": False}


@pytest.mark.parametrize(
    ("name", "hparams", "at_400", "at_101"),
    [
        ("slowfast_r50_4x16", {}, 34_480_216, 33_791_021),
        ("slowfast_r50_4x16", SEED_000, 34_478_888, 33_789_992),
        ("slowfast_r50_8x8", {}, 34_566_488, 33_877_293),
        ("slowfast_r50_8x8", {"fusion_kernel": 5}, 34_480_216, 33_791_021),
        ("r3d_18", {}, 33_371_472, 33_218_085),
        ("mc3_18", {}, 11_695_440, 11_542_053),
        ("r2plus1d_18", {"midplanes": "torchvision"}, 31_505_325, 31_351_938),
        ("r2plus1d_18", {"midplanes": "paper"}, 33_370_839, 33_217_452),
    ],
)
def test_parameter_count(name: str, hparams: dict[str, Any], at_400: int, at_101: int) -> None:
    for classes, expected in ((400, at_400), (101, at_101)):
        with torch.device("meta"):
            model = models.create_model(name, num_classes=classes, **hparams)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_slow_index_and_initialisation_add_no_parameter() -> None:
    with torch.device("meta"):
        model = models.create_model("slowfast_r50_4x16", num_classes=400, slow_index="stride", zero_init=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 34_480_216
