"""SlowFast of bottlenecks is pytorchvideo's, to rounding, through a map of names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models

from .oracles import assert_same_network, pytorchvideo, random_clip, randomise


@pytest.fixture(scope="module")
def slowfast() -> ModuleType:
    return pytorchvideo("slowfast")


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    frames: int
    size: int
    hparams: dict[str, Any]


CASES = [
    Case(name="slowfast_r50_4x16", frames=16, size=32, hparams={"width": 32}),
    Case(name="slowfast_r50_8x8", frames=8, size=48, hparams={"width": 16}),
    Case(
        name="slowfast_r50_8x8",
        frames=8,
        size=48,
        hparams={"width": 16, "beta_inv": 4, "fusion_ratio": 1, "fusion_kernel": 3},
    ),
    Case(
        name="slowfast_r50_4x16",
        frames=16,
        size=48,
        hparams={"width": 16, "lateral_norm": False, "slow_index": "stride"},
    ),
    # More than one channel in the fast path: a single one makes gradients too ill-conditioned for ten digits.
    Case(name="slowfast_r101", frames=16, size=32, hparams={"width": 8, "beta_inv": 2}),
    Case(name="slowfast_r101_8x8", frames=8, size=32, hparams={"width": 8, "beta_inv": 2}),
    Case(name="slowfast_16x8_r101_50_50", frames=8, size=32, hparams={"width": 8, "beta_inv": 2}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.hparams}")
def test_same_network_as_pytorchvideo(slowfast: ModuleType, case: Case) -> None:
    ours = models.create_model(case.name, num_classes=5, dropout=0.0, **case.hparams)
    randomise(ours, seed=2)
    theirs = oracle(slowfast, case, classes=5)
    names = {key: their_name(key) for key in ours.state_dict()}
    state = {names[key]: tensor for key, tensor in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)
    ours.double()
    theirs.double()
    clip = random_clip(2, 3, case.frames, case.size, case.size)
    alpha = int(ours.settings.hparams["alpha"])

    def pathways() -> list[Tensor]:
        # A fresh list every time: pytorchvideo writes its features into the one it is given.
        if ours.settings.hparams["slow_index"] == "stride":
            return [clip[:, :, ::alpha], clip]
        index = torch.linspace(0, case.frames - 1, case.frames // alpha).long()
        return [clip[:, :, index], clip]

    assert_same_network(ours, theirs, clip, pathways, names)


def oracle(slowfast: ModuleType, case: Case, *, classes: int) -> nn.Module:
    values = models.resolve_hparams(models.model_info(case.name), case.hparams)
    alpha, beta_inv, width = (int(values[key]) for key in ("alpha", "beta_inv", "width"))
    plain = not values["lateral_norm"]
    fusion = slowfast.FastToSlowFusionBuilder(
        slowfast_channel_reduction_ratio=beta_inv,
        conv_fusion_channel_ratio=values["fusion_ratio"],
        conv_kernel_size=(values["fusion_kernel"], 1, 1),
        conv_stride=(alpha, 1, 1),
        norm=None if plain else nn.BatchNorm3d,
        activation=None if plain else nn.ReLU,
        max_stage_idx=3,
    )
    last = -(-case.size // 32)
    fixed = dict(models.model_info(case.name).fixed)
    # As pytorchvideo's hub has it: of the 23 blocks of res4, 6 look along time.
    half = {"stage_conv_a_kernel_sizes": tuple(_halved(kernel) for kernel in (1, 3))}
    model = slowfast.create_slowfast(
        slowfast_channel_reduction_ratio=(beta_inv,),
        slowfast_conv_channel_fusion_ratio=values["fusion_ratio"],
        fusion_builder=fusion.create_module,
        model_depth=fixed["depth"],
        **(half if "50_50" in case.name else {}),
        model_num_class=classes,
        dropout_rate=0.0,
        stem_dim_outs=(width, width // beta_inv),
        head_pool_kernel_sizes=((case.frames // alpha, last, last), (case.frames, last, last)),
    )
    assert isinstance(model, nn.Module)
    return model


def _halved(early: int) -> tuple[object, ...]:
    return ((early, 1, 1), (early, 1, 1), ((3, 1, 1),) * 6 + ((1, 1, 1),) * 17, (3, 1, 1))


def their_name(ours: str) -> str:
    """Return pytorchvideo's name for one of our state-dict names."""
    rules = [
        (r"^head\.", r"blocks.6.proj."),
        (r"^laterals\.(\d)\.conv\.", r"blocks.\1.multipathway_fusion.conv_fast_to_slow."),
        (r"^laterals\.(\d)\.norm\.", r"blocks.\1.multipathway_fusion.norm."),
        (r"^(slow|fast)\.stem\.", r"blocks.0.multipathway_blocks.\1."),
    ]
    for pattern, replacement in rules:
        renamed, count = re.subn(pattern, replacement, ours)
        if count:
            return _by_number(renamed)
    match = re.fullmatch(r"(slow|fast)\.stages\.(\d)\.(\d+)\.(branch|shortcut)\.(.+)", ours)
    assert match is not None, ours
    path, stage, block, part, rest = match.groups()
    if part == "branch":
        rest = f"branch2.{rest}"
    else:
        rest = rest.replace("0.", "branch1_conv.", 1) if rest[0] == "0" else f"branch1_norm.{rest[2:]}"
    prefix = f"blocks.{int(stage) + 1}.multipathway_blocks.{path}.res_blocks.{block}"
    return _by_number(f"{prefix}.{rest}")


def _by_number(name: str) -> str:
    return name.replace("_blocks.slow.", "_blocks.0.").replace("_blocks.fast.", "_blocks.1.")
