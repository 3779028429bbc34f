"""The optimizer takes the steps of PyTorch's plain ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hpo.spec.training import TrainingConfig
from workers.training.optimizer import make_optimizer


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({}, (torch.optim.SGD, {"momentum": 0.9})),
        ({"nesterov": True}, (torch.optim.SGD, {"momentum": 0.9, "nesterov": True})),
        ({"momentum": 0.0, "nesterov": True}, (torch.optim.SGD, {})),
        ({"optimizer": "adamw", "momentum": 0.8}, (torch.optim.AdamW, {"betas": (0.8, 0.999)})),
    ],
)
def test_steps_are_those_of_the_plain_optimizer(
    settings: dict[str, Any], plain: tuple[type[torch.optim.Optimizer], dict[str, Any]]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = nn.Linear(5, 3)
        clip = torch.randn(4, 5)
    theirs = copy.deepcopy(ours)
    config = TrainingConfig.from_flat({"lr": 0.05, **settings})
    kind, options = plain
    pairs = [
        (ours, make_optimizer(_groups(ours), config)),
        (theirs, kind(_groups(theirs), **{"lr": 0.05, "foreach": False, **options})),
    ]
    for model, optimizer in pairs:
        for _ in range(5):
            optimizer.zero_grad()
            model(clip).square().sum().backward()
            optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def _groups(model: nn.Linear) -> list[dict[str, Any]]:
    return [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.0}]
