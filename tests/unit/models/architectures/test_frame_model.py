"""Shared parts of image networks over clips: norms that keep their statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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
