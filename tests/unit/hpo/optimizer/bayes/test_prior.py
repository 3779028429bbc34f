"""A belief in the acquisition: its density, its fading, and what a right and a wrong one do to a search."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import truncnorm

from hpo.optimizer import Optimizer
from hpo.optimizer.ax_generator import AxGenerator
from hpo.optimizer.bayes.prior import Belief, power
from hpo.optimizer.bayes.space import Space
from hpo.trial import Params

from ...records import spec_with

BEST = {"lr": 0.003, "weight_decay": 2e-4, "dropout": 0.65}
RIGHT: Params = {"lr": 0.005, "weight_decay": 1e-4, "dropout": 0.6, "model": "b"}
WRONG: Params = {"lr": 0.2, "weight_decay": 5e-6, "dropout": 0.1, "model": "c"}


def _space(prior: Params, confidence: str = "medium") -> dict[str, Any]:
    space: dict[str, Any] = {
        "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
        "weight_decay": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.9},
        "model": {"type": "categorical", "choices": ["a", "b", "c"]},
        "model.x": {"type": "float", "low": 0.0, "high": 1.0, "when": {"model": ["a"]}},
    }
    for key, centre in prior.items():
        space[key]["prior"] = {"center": centre, "confidence": confidence}
    return space


def _belief(prior: Params, confidence: str = "medium") -> Belief:
    return Belief(space=Space(spec_with(space=_space(prior, confidence))), power=1.0)


@pytest.mark.parametrize(("confidence", "sd"), [("low", 0.5), ("medium", 0.25), ("high", 0.125)])
def test_the_belief_about_a_number_is_a_truncated_normal(confidence: str, sd: float) -> None:
    belief = _belief({"dropout": 0.63}, confidence)
    coordinates = np.linspace(0, 1, 7)
    rows = np.column_stack([np.full((7, 2), 0.3), coordinates, np.zeros((7, 2))])
    density = truncnorm((0 - 0.7) / sd, (1 - 0.7) / sd, 0.7, sd).pdf(coordinates)
    np.testing.assert_allclose(belief.values(rows), np.log(0.95 * density + 0.05))


def test_the_belief_about_a_choice_follows_its_weight() -> None:
    shares = np.exp(
        _belief({"model": "b"}, "high").values(np.array([[0.5, 0.5, 0.5, place, 0.5] for place in range(3)]))
    )
    np.testing.assert_allclose(shares / 3, [1 / 8, 6 / 8, 1 / 8])


def test_inactive_parameters_contribute_nothing() -> None:
    belief = _belief({"model.x": 0.9}, "high")
    values = belief.values(np.array([[0.5, 0.5, 0.5, place, 0.0] for place in range(3)]))
    assert values[0] < -1
    assert list(values[1:]) == [0, 0]


def test_the_gradient_is_that_of_the_values() -> None:
    belief = _belief({**RIGHT, "model.x": 0.2}, "high")
    row = np.array([0.2, 0.7, 0.4, 0.0, 0.6])
    expected = approx_fprime(row, lambda x: float(belief.values(x[None])[0]), 1e-7)
    np.testing.assert_allclose(belief(row[None])[1][0], expected, atol=1e-4)


def test_a_belief_fades_with_the_trials() -> None:
    spec = spec_with(space=_space(RIGHT), budget={"trials": 50})
    assert [power(spec, trials) for trials in (0, 1, 5, 50)] == [5, 5, 1, 0.1]
    assert power(spec_with(space=_space(RIGHT), budget={"wall_hours": 1}), 10) == 1


def _gaps(prior: Params, trials: int) -> list[float]:
    """Return the best value of a search after each trial; the optimum is 0."""

    def gap(params: Params) -> float:
        lr, decay = (math.log10(float(params[key]) / BEST[key]) / 4 for key in ("lr", "weight_decay"))
        return math.hypot(lr, decay, float(params["dropout"]) - BEST["dropout"]) + 0.1 * (params["model"] != "b")

    spec = spec_with(space=_space(prior), optimizer={"seed": 1}, budget={"trials": 24})
    optimizer = Optimizer(spec, AxGenerator)
    found: list[float] = []
    for number in range(trials):
        (suggestion,) = optimizer.ask()
        optimizer.register(number, suggestion)
        value = gap(suggestion.params)
        optimizer.tell(number, {"val_top1": -value})
        found.append(min([value, *found[-1:]]))
    return found


@pytest.mark.slow
def test_a_right_belief_saves_trials_and_a_wrong_one_is_overcome() -> None:
    none, right, wrong = _gaps({}, 10), _gaps(RIGHT, 10), _gaps(WRONG, 24)
    assert np.mean(right) < 0.5 * np.mean(none)
    assert wrong[4] > none[4]
    assert wrong[-1] < 0.2 * none[4]
