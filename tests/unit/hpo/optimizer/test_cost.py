"""Costs are learnt from few trials, and a budget of GPU hours buys by them."""

from __future__ import annotations

import math
import random

import pytest

from hpo.optimizer import create_optimizer
from hpo.optimizer.cost import expected_cost, seconds_per_epoch
from hpo.optimizer.history import History
from hpo.spec import StudySpec
from hpo.trial import Params, TrialRecord, TrialState

from ..records import record_of, spec_with

SPACE = {
    "clip.frames": {"type": "int", "low": 8, "high": 64, "log": True},
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "model": {"type": "categorical", "choices": ["r2plus1d_18", "tsm_r50"]},
}
EPOCHS = 9


def _seconds(params: Params) -> float:
    """Return the seconds of an epoch: loading, which takes the same time for all, and computing."""
    return 5.0 + (2.0 if params["model"] == "tsm_r50" else 6.0) * float(params["clip.frames"])


def _draw(rng: random.Random) -> Params:
    frames = round(8 * 8 ** rng.random())
    return {"clip.frames": frames, "lr": 10 ** rng.uniform(-4, 0), "model": rng.choice(["r2plus1d_18", "tsm_r50"])}


def _trial(id: int, params: Params) -> TrialRecord:
    steps = 1 + id % EPOCHS
    curve = [0.5 - 0.05 * math.log10(float(params["lr"])) ** 2] * steps
    state = TrialState.COMPLETED if steps == EPOCHS else TrialState.STOPPED
    seconds = _seconds(params) * steps
    return record_of(id, state, values=curve, metrics={"val_top1": curve[-1]}, params=params, gpu_seconds=seconds)


def _spec(**budget: float) -> StudySpec:
    return spec_with(space=SPACE, epochs=EPOCHS, budget={"trials": 100, **budget}, optimizer={"startup_trials": 4})


def test_the_cost_of_a_full_trial_is_predicted_from_a_dozen_partial_ones() -> None:
    rng = random.Random(0)  # noqa: S311 - a test, not a secret
    cost = expected_cost(History(_spec(), [_trial(id, _draw(rng)) for id in range(12)]))
    assert cost is not None
    for _ in range(30):
        params = _draw(rng)
        assert cost(params) == pytest.approx(EPOCHS * _seconds(params), rel=0.25)


def test_nothing_is_predicted_from_too_few_trials() -> None:
    rng = random.Random(0)  # noqa: S311 - a test, not a secret
    assert expected_cost(History(_spec(), [_trial(id, _draw(rng)) for id in range(3)])) is None


def test_seconds_count_for_measured_epochs_only() -> None:
    assert seconds_per_epoch(record_of(0, values=[0.1, 0.2], gpu_seconds=30.0)) == 15.0
    assert seconds_per_epoch(record_of(0)) is None


@pytest.mark.slow
def test_with_a_budget_of_gpu_hours_cheaper_trials_of_equal_promise_are_proposed() -> None:
    """Accuracy depends on the learning rate alone, so nothing is gained by more frames."""
    cost = {False: 0.0, True: 0.0}
    for seed in range(4):
        for budget in ({}, {"gpu_hours": 10.0}):
            rng = random.Random(seed)  # noqa: S311 - a test, not a secret
            optimizer = create_optimizer(_spec(**budget))
            optimizer.replay([_trial(id, _draw(rng)) for id in range(14)])
            cost[bool(budget)] += sum(_seconds(suggestion.params) for suggestion in optimizer.ask(4))
    assert cost[True] < 0.5 * cost[False]


@pytest.mark.parametrize("power", [0.0, -0.4, 0.3])
def test_the_cost_depends_on_the_batch_size_as_it_was_measured(power: float) -> None:
    """Large batches may be faster or slower; the trials say which."""
    spec = spec_with(space={**SPACE, "batch_size": {"type": "int", "low": 4, "high": 64, "log": True}}, epochs=EPOCHS)
    rng = random.Random(1)  # noqa: S311 - a test, not a secret

    def drawn() -> Params:
        return {**_draw(rng), "batch_size": round(4 * 16 ** rng.random())}

    def seconds(params: Params) -> float:
        return _seconds(params) * math.pow(float(params["batch_size"]) / 16, power)

    records = []
    for id in range(24):
        params = drawn()
        values = {"val_top1": 0.5}
        taken = EPOCHS * seconds(params)
        records.append(
            record_of(id, TrialState.COMPLETED, values=[0.5] * EPOCHS, metrics=values, params=params, gpu_seconds=taken)
        )
    cost = expected_cost(History(spec, records))
    assert cost is not None
    small, large = ({"clip.frames": 16, "lr": 0.01, "model": "tsm_r50", "batch_size": batch} for batch in (4, 64))
    assert cost(large) / cost(small) == pytest.approx(16**power, rel=0.15)
    assert cost(small) == pytest.approx(EPOCHS * seconds(small), rel=0.15)
