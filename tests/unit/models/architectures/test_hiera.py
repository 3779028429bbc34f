"""Hiera is that of timm, to rounding, and takes clips of any size."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.hiera import Hiera
from torch import Tensor, nn

import models

from ..oracles import TOLERANCE, random_clip, randomise, relative_gap

_RENAMED = {"head.norm.weight": "norm.weight", "head.norm.bias": "norm.bias"}
_RENAMED |= {"head.fc.weight": "head.projection.weight", "head.fc.bias": "head.projection.bias"}


def oracle() -> nn.Module:
    net: nn.Module = Hiera(
        img_size=(4, 64, 96),
        embed_dim=16,
        num_heads=2,
        stages=(2, 3, 16, 3),
        num_classes=5,
        q_stride=(1, 2, 2),
        mask_unit_size=(1, 8, 8),
        patch_kernel=(3, 7, 7),
        patch_stride=(2, 4, 4),
        patch_padding=(1, 3, 3),
        sep_pos_embed=True,
    )
    randomise(net, seed=1)
    return net


def small(**options: Any) -> models.VideoModel:
    sizes: dict[str, Any] = {"width": 16, "heads": 2, "table_frames": 4, "table_size": 64, "stochastic_depth": 0.0}
    return models.create_model("hiera_b", num_classes=5, **{**sizes, **options})


def ours_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_RENAMED.get(name, name): tensor for name, tensor in state.items()}


def test_hiera_computes_the_same() -> None:
    theirs, ours = oracle(), small()
    state = ours_of(theirs.state_dict())
    # Their table has the clip's 16 x 24 places; in ours, zeros leave what is added to the maps.
    table = state.pop("pos_embed_spatial")
    missing = ours.load_state_dict({**ours.state_dict(), **state}, strict=True)
    assert not missing.missing_keys
    nn.init.zeros_(ours.get_parameter("pos_embed_spatial"))
    theirs.double()
    ours.double()
    ours.get_submodule("patch_embed").register_forward_hook(
        lambda module, given, maps: maps + table.double().transpose(1, 2).view(1, 16, 1, 16, 24)
    )
    clip = random_clip(2, 3, 4, 64, 96)
    logits, expected = ours(clip), theirs(clip)
    assert relative_gap(logits, expected) < TOLERANCE
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradients = ours_of({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        if name != "pos_embed_spatial":
            assert relative_gap(parameter.grad, gradients[name]) < TOLERANCE, name


def test_positions_are_added_where_they_belong() -> None:
    model = small().double()
    table = model.get_parameter("pos_embed_spatial").view(16, 16, 16)
    times = model.get_parameter("pos_embed_temporal").view(2, 16)
    seen: list[Tensor] = []
    model.get_submodule("blocks.0").register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    nn.init.zeros_(model.get_parameter("patch_embed.proj.weight"))
    nn.init.zeros_(model.get_parameter("patch_embed.proj.bias"))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 4, 64, 64).double())
        torch.testing.assert_close(seen[0][0, 1, 3, 5], table[3, 5] + times[1])
        # Twice the width: between two columns, a quarter of the way from the nearer one. Parts of a unit are cut off.
        model(torch.zeros(1, 3, 4, 70, 128).double())
        assert seen[1].shape == (1, 2, 16, 32, 16)
        model(torch.zeros(1, 3, 4, 64, 128).double())
        torch.testing.assert_close(seen[2][0, 0, 3, 1], 0.75 * table[3, 0] + 0.25 * table[3, 1] + times[0])
