"""The optimizer's steps are those of PyTorch's plain ones; the learning rate has a closed form."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from hpo.spec import TrainingConfig
from hpo.spec.tasks.video import Schedule
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


SCHEDULERS: list[tuple[dict[str, Any], Callable[[torch.optim.Optimizer], Any]]] = [
    ({"schedule": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=40)),
    ({"schedule": "cosine", "min_lr_share": 0.2}, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=40, eta_min=0.06)),
    ({"schedule": "step", "lr_step": 0.25, "lr_gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 10, gamma=0.3)),
    (
        {"schedule": "multistep", "lr_milestones": "0.3, 0.6"},
        lambda o: lr_scheduler.MultiStepLR(o, [12, 24], gamma=0.1),
    ),
    ({"schedule": "exponential", "lr_gamma": 0.02}, lambda o: lr_scheduler.ExponentialLR(o, gamma=0.02 ** (1 / 40))),
    (
        {"schedule": "one_cycle", "warmup_fraction": 0.3},
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=40, pct_start=0.3, cycle_momentum=False),
    ),
    (
        {"schedule": "one_cycle", "warmup_fraction": 0.45, "warmup_start_share": 0.1, "min_lr_share": 0.01},
        lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=0.3, total_steps=40, pct_start=0.45, div_factor=10, final_div_factor=10, cycle_momentum=False
        ),
    ),
    (
        {"schedule": "constant", "warmup_fraction": 0.225, "warmup_start_share": 0.1},
        # Theirs begins where ours is one update before the first.
        lambda o: lr_scheduler.LinearLR(o, start_factor=0.19, total_iters=9),
    ),
]


@pytest.mark.parametrize(("settings", "scheduler"), SCHEDULERS)
def test_schedules_are_those_of_pytorch(
    settings: dict[str, Any], scheduler: Callable[[torch.optim.Optimizer], Any]
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = scheduler(optimizer)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < 40:
            theirs.step()
    assert _rates(40, **{"warmup_fraction": 0.0, **settings}) == pytest.approx(expected, rel=1e-9)


def test_no_rate_after_the_warm_up_is_below_the_lowest() -> None:
    rates = _rates(40, schedule="step", lr_step=0.1, min_lr_share=0.05, warmup_fraction=0.2)
    assert rates[:2] == pytest.approx([0.3 / 9, 0.6 / 9])
    assert min(rates[8:]) == pytest.approx(0.015)
    assert rates[-1] == pytest.approx(0.015)


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_the_rate_is_that_of_the_batch_size(scaling: str, factor: float) -> None:
    plain = _rates(20, batch_size=32, warmup_start_share=0.1)
    scaled = _rates(20, batch_size=32, warmup_start_share=0.1, lr_scaling=scaling, lr_batch_size=8)
    assert scaled == pytest.approx([factor * rate for rate in plain], rel=1e-12)


def test_warm_up_rises_in_equal_steps_to_the_full_rate() -> None:
    rates = _rates(40, warmup_fraction=0.25)
    assert rates[10] == 0.3
    assert rates[:10] == pytest.approx([0.3 * (step + 1) / 11 for step in range(10)])
    assert max(rates) == rates[10]


def test_constant_stays_after_the_warm_up() -> None:
    assert _rates(20, schedule="constant", warmup_fraction=0.5)[10:] == [0.3] * 10


SHARES = st.just(0.0) | st.floats(0.001, 1)


@given(
    total=st.integers(1, 500),
    settings=st.fixed_dictionaries(
        {
            "schedule": st.sampled_from(get_args(Schedule)),
            "warmup_fraction": st.floats(0, 0.99),
            "warmup_start_share": SHARES,
            "min_lr_share": SHARES,
            "lr_gamma": st.floats(0.01, 0.99),
            "lr_step": st.floats(0.01, 0.99),
        }
    ),
)
def test_every_rate_is_positive_and_at_most_the_configured_one(total: int, settings: dict[str, Any]) -> None:
    rates = _rates(total, **settings)
    assert all(0 < rate <= 0.3 for rate in rates)
    schedule, lowest, warmup = (settings[name] for name in ("schedule", "min_lr_share", "warmup_fraction"))
    after = round(warmup * total)
    # A run of one update may be all warm-up.
    assert schedule == "one_cycle" or all(rate >= 0.3 * lowest for rate in rates[after:])
    if schedule in ("cosine", "constant", "exponential", "one_cycle"):
        peak = rates.index(max(rates))
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_a_run_without_the_new_settings_has_the_rates_of_earlier_releases() -> None:
    """To the last bit: exports of earlier releases train again to the value that they hold."""
    for total in (7, 40):
        warmup = round(0.1 * total)
        cosine = [0.3 * 0.5 * (1 + math.cos(math.pi * (n - warmup) / (total - warmup))) for n in range(warmup, total)]
        assert _rates(total) == [0.3 * (n + 1) / (warmup + 1) for n in range(warmup)] + cosine
