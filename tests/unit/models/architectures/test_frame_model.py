"""Shared parts of image networks over clips: norms that keep their statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import models
from models.layers.temporal_modules import NonLocal

from ..oracles import random_clip, randomise
from ..tiny import tiny


@pytest.mark.parametrize("name", ["tsn_resnet18", "tam_inception_v1"])
def test_with_partial_norm_all_norms_but_the_first_keep_their_statistics(name: str) -> None:
    model = tiny(name, partial_norm=True)
    randomise(model, seed=1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for again in (False, True):
        if again:
            model.eval().train()
        before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
        model(random_clip(2, 3, 4, 32, 32).float()).sum().backward()
        kept = [torch.equal(old, norm.running_mean) for old, norm in zip(before, norms, strict=True)]  # type: ignore[arg-type]  # they have statistics
        assert kept == [False] + [True] * (len(norms) - 1)
    assert all(norm.weight.grad is not None for norm in norms)
    assert not any(norm.training for norm in model.eval().modules())


@pytest.mark.parametrize(
    ("name", "form", "places"),
    [
        ("tsm_resnet50", "tsm", ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"]),
        ("tsn_resnet50", "ibm", ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]),
        ("tam_resnet18", "tsm_dot_product", ["layer2.0", "layer3.0"]),
    ],
)
def test_non_local_blocks_have_the_places_and_kind_of_their_program(name: str, form: str, places: list[str]) -> None:
    with torch.device("meta"):
        model = models.create_model(name, num_classes=2, non_local=True, non_local_form=form)
    found = {key.removesuffix(".nl"): module for key, module in model.named_modules() if isinstance(module, NonLocal)}
    assert list(found) == places
    kinds = {"ibm": ("gaussian", "before"), "tsm": ("gaussian", "after"), "tsm_dot_product": ("dot_product", "after")}
    assert {(module.kind, module.pool) for module in found.values()} == {kinds[form]}
