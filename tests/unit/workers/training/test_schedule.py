"""The learning rate against PyTorch's scheduler and its own promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo.spec.training import TrainingConfig
from workers.training.schedule import learning_rate


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
