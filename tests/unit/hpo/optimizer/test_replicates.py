"""Configurations that are trained again: what the optimizer makes of several values of one."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.optimizer import create_optimizer
from hpo.optimizer.bayes.gp import Hyperparameters, Process
from hpo.optimizer.cube import key_of
from hpo.trial import REPLICATE, TrialRecord, TrialState

from ..records import record_of, spec_with

SPACE = {
    "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.8},
}
POINTS = np.random.default_rng(7).random((12, 2))
COLUMNS = np.array([0, 1])


def searched(count: int = 8) -> list[TrialRecord]:
    """Return completed trials of different configurations, each better than the one before."""
    return [
        record_of(
            number,
            TrialState.COMPLETED,
            params={"lr": 0.001 * (number + 1), "dropout": 0.05 * number},
            metrics={"val_top1": 0.4 + 0.02 * number},
            generator="sobol",
        )
        for number in range(count)
    ]


def again(number: int, of: TrialRecord, state: TrialState, value: float | None = None) -> TrialRecord:
    """Return a further training of a configuration."""
    metrics = None if value is None else {"val_top1": value}
    return record_of(number, state, params=of.params, metrics=metrics, replicate_of=of.number, generator=REPLICATE)


def test_several_values_of_one_configuration_count_as_their_mean_with_less_noise() -> None:
    """Against a process that is given the mean of four values with a quarter of their variance."""
    hyper = Hyperparameters(lengthscales=np.array([0.5, 0.8]), outputscale=1.0, noise=1e-9, mean=0.2)
    targets = np.linspace(-1.0, 1.0, len(POINTS))
    four = np.array([1.0, 0.2, 0.5, 0.7])
    points = np.concatenate([POINTS, np.repeat(POINTS[:1], 3, axis=0)])
    query = np.random.default_rng(8).random((20, 2))
    repeated = Process(
        points, np.concatenate([four[:1], targets[1:], four[1:]]), np.full(len(points), 0.04), COLUMNS, [hyper]
    )
    combined = Process(
        POINTS,
        np.concatenate([[four.mean()], targets[1:]]),
        np.array([0.01, *[0.04] * (len(POINTS) - 1)]),
        COLUMNS,
        [hyper],
    )
    assert np.allclose(repeated.marginal(query), combined.marginal(query), atol=1e-6)


def test_replicates_do_not_shorten_the_start_up() -> None:
    optimizer = create_optimizer(spec_with(space=SPACE, optimizer={"startup_trials": 7}))
    trials = searched(5)
    optimizer.replay(trials)
    left = optimizer.startup_left
    optimizer.replay([*trials, *(again(5 + place, trials[0], TrialState.COMPLETED, 0.4) for place in range(2))])
    assert optimizer.startup_left == left == 2


@pytest.mark.parametrize("name", ["ax", "tpe"])
def test_proposals_are_new_while_a_configuration_is_trained_again(name: str) -> None:
    trials = searched()
    best = trials[-1]
    more = [
        again(8, best, TrialState.COMPLETED, 0.5),
        again(9, best, TrialState.RUNNING),
        again(10, best, TrialState.SUGGESTED),
    ]
    optimizer = create_optimizer(spec_with(space=SPACE, optimizer={"name": name, "startup_trials": 4}))
    optimizer.replay([*trials, *more])
    found = optimizer.ask(2)
    keys = {key_of(suggestion.params) for suggestion in found}
    assert len(keys) == 2
    assert not keys & {key_of(trial.params) for trial in trials}
    assert all(suggestion.generator not in ("sobol", REPLICATE) for suggestion in found)


def test_the_best_is_that_of_the_combined_values() -> None:
    """The luckiest trial would win with .8 alone; with .4 and .42 beside it another one does."""
    trials = [
        *searched(),
        record_of(8, TrialState.COMPLETED, params={"lr": 0.1, "dropout": 0.7}, metrics={"val_top1": 0.8}),
    ]
    optimizer = create_optimizer(spec_with(space=SPACE))
    optimizer.replay(trials)
    assert optimizer.best() == 8
    optimizer.replay(
        [*trials, *(again(9 + n, trials[8], TrialState.COMPLETED, value) for n, value in enumerate((0.3, 0.32, 0.31)))]
    )
    assert optimizer.best() == 7
