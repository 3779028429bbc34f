"""Names, cards and checks: plain data, one-sentence errors, no torch."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from typing import Any

import pytest

import models

NAMES = [
    "mc3_18",
    "r2plus1d_18",
    "r3d_18",
    "slowfast_r18",
    "slowfast_r50_4x16",
    "slowfast_r50_8x8",
]


def test_every_model_is_listed_once_in_order() -> None:
    names = models.list_models()
    assert names == sorted(set(names))
    assert set(NAMES) <= set(names)


def test_cards_are_read_and_checked_without_torch() -> None:
    program = """
import sys, models
for name in models.list_models():
    info = models.model_info(name)
    models.model_settings(name, num_classes=3, hparams=info.defaults())
    models.check_clip(name, frames=info.clip.frames, size=info.clip.size)
try:
    models.check_clip("slowfast_r18", frames=9, size=32)
except models.InvalidModelError:
    pass
assert "create_model" in dir(models)
assert not {"torch", "torchvision"} & set(sys.modules), "reading cards imported torch"
models.create_model
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)


def test_public_names_all_exist() -> None:
    for name in models.__all__:
        assert getattr(models, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        models.nothing  # noqa: B018 -- the access is what is tested


@pytest.mark.parametrize("name", models.list_models())
def test_card_is_plain_frozen_data_whose_defaults_are_accepted(name: str) -> None:
    info = models.model_info(name)
    assert info.name == name
    json.dumps(dataclasses.asdict(info))
    hash(info)
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.name = "other"  # type: ignore[misc]  # the assignment must fail
    assert models.resolve_hparams(info, {}) == info.defaults()
    models.check_clip(name, frames=info.clip.frames, size=info.clip.size)
    fixed = {key for key, _ in info.fixed}
    assert not fixed & set(info.defaults())
    assert all(hparam.doc.endswith(".") and str(hparam.accepts) for hparam in info.hparams)


def test_default_clips_are_those_of_the_papers() -> None:
    for name in ("slowfast_r50_4x16", "slowfast_r50_8x8"):
        clip = models.model_info(name).clip
        assert (clip.frames * clip.stride, clip.frames, clip.size) == (64, 32, 224)
        assert (clip.mean, clip.std) == ((0.45,) * 3, (0.225,) * 3)
    r2plus1d = models.model_info("r2plus1d_18").clip
    assert (r2plus1d.frames, r2plus1d.size) == (16, 112)
    assert r2plus1d.mean == (0.43216, 0.394666, 0.37645)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("slowfst_r18", "did you mean 'slowfast_r18'"),
        ("R2plus1d_18", "did you mean 'r2plus1d_18'"),
        ("", "models.list_models() names all"),
    ],
)
def test_unknown_name_error_lists_close_matches(name: str, hint: str) -> None:
    with pytest.raises(models.UnknownModelError, match=re.escape(hint)):
        models.create_model(name, num_classes=2)


@pytest.mark.parametrize(
    ("name", "hparams", "message"),
    [
        ("slowfast_r18", {"alfa": 8}, "slowfast_r18 has no hyperparameter 'alfa'; did you mean"),
        ("r3d_18", {"midplanes": "paper"}, "no hyperparameter 'midplanes'"),
        ("slowfast_r18", {"depth": 50}, "no hyperparameter 'depth'"),
        ("slowfast_r18", {"dropout_": 1}, "no hyperparameter 'dropout_'; it has alpha, beta_inv"),
        ("slowfast_r18", {"alpha": 1}, "alpha must be a whole number from 2 to 32, not 1"),
        ("slowfast_r18", {"alpha": 8.0}, "alpha must be a whole number"),
        ("slowfast_r18", {"beta_inv": True}, "beta_inv must be a whole number"),
        ("slowfast_r18", {"fusion_kernel": 4}, "fusion_kernel must be one of 1, 3, 5, 7, 9"),
        ("slowfast_r18", {"head_bias": 1}, "head_bias must be one of False, True, not 1"),
        ("slowfast_r18", {"slow_index": "first"}, "must be one of linspace, stride, not 'first'"),
        ("slowfast_r18", {"width": 12}, "beta_inv = 8 does not divide width = 12"),
        ("slowfast_r50_8x8", {"beta_inv": 7}, "choose width as a multiple of beta_inv"),
        ("r2plus1d_18", {"midplanes": "mine"}, "one of torchvision, paper, not 'mine'"),
    ],
)
def test_wrong_hyperparameter_is_one_sentence(name: str, hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(models.InvalidModelError, match=re.escape(message)) as caught:
        models.create_model(name, num_classes=2, **hparams)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number of at least 1, not 0"),
        ({"num_classes": 2.0}, "num_classes must be a whole number"),
        ({"num_classes": 2, "in_channels": 0}, "in_channels must be"),
        ({"num_classes": 2, "dropout": 1.0}, "dropout must be a number from 0 to below 1"),
        ({"num_classes": 2, "dropout": -0.1}, "dropout must be"),
        ({"num_classes": 2, "dropout": float("nan")}, "dropout must be"),
        ({"num_classes": 2, "dropout": "half"}, "dropout must be"),
    ],
)
def test_wrong_common_argument_is_one_sentence(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(models.InvalidModelError, match=re.escape(message)):
        models.model_settings("r3d_18", **arguments)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("frames", "size", "alpha", "message"),
    [
        (20, 32, 8, "alpha = 8 does not divide frames = 20; choose frames as a multiple of alpha"),
        (4, 32, 8, "alpha = 8 does not divide frames = 4"),
        (0, 32, 8, "needs at least 1 frames, the clip has 0"),
        (16, 15, 8, "needs at least 16 pixels a side, the clip has 15"),
    ],
)
def test_clip_is_checked_by_the_card(frames: int, size: int, alpha: int, message: str) -> None:
    with pytest.raises(models.InvalidClipError, match=re.escape(message)):
        models.check_clip("slowfast_r18", frames=frames, size=size, hparams={"alpha": alpha})


def test_values_of_other_integer_types_become_plain_ints() -> None:
    numpy = pytest.importorskip("numpy")
    values = models.resolve_hparams(models.model_info("slowfast_r18"), {"alpha": numpy.int64(4), "fusion_kernel": 7})
    assert type(values["alpha"]) is int
    assert (values["alpha"], values["fusion_kernel"]) == (4, 7)


def test_errors_are_one_family() -> None:
    assert issubclass(models.ModelError, ValueError)
    for error in (models.UnknownModelError, models.InvalidModelError, models.WeightsError):
        assert issubclass(error, models.ModelError)
    assert issubclass(models.InvalidClipError, models.InvalidModelError)
