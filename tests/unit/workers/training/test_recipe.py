"""The optimizer's steps are those of PyTorch's plain ones; the learning rate has a closed form."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpo.spec import TrainingConfig
from workers.training.recipe import learning_rate, make_optimizer


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


def _rates(total: int, **settings: object) -> list[float]:
    config = TrainingConfig.from_flat({"lr": 0.3, **settings})
    return [learning_rate(config, step=step, total_steps=total) for step in range(total)]


def test_cosine_equals_pytorchs_scheduler() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=37)
    expected = []
    for _ in range(37):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert _rates(37, warmup_fraction=0.0) == pytest.approx(expected, rel=1e-9)


def test_warm_up_rises_in_equal_steps_to_the_full_rate() -> None:
    rates = _rates(40, warmup_fraction=0.25)
    assert rates[10] == 0.3
    assert rates[:10] == pytest.approx([0.3 * (step + 1) / 11 for step in range(10)])
    assert max(rates) == rates[10]


def test_constant_stays_after_the_warm_up() -> None:
    assert _rates(20, schedule="constant", warmup_fraction=0.5)[10:] == [0.3] * 10


@given(
    total=st.integers(1, 500),
    warmup=st.floats(0, 0.99),
    schedule=st.sampled_from(["cosine", "constant"]),
)
def test_every_rate_is_positive_and_at_most_the_configured_one(total: int, warmup: float, schedule: str) -> None:
    rates = _rates(total, warmup_fraction=warmup, schedule=schedule)
    assert all(0 < rate <= 0.3 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
