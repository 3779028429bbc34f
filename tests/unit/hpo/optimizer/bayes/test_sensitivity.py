"""Shares of closed forms: of a sum, of a product, and under a condition; intervals that narrow with the outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.arrays import Array
from hpo.optimizer.bayes.gp import Hyperparameters, Process
from hpo.optimizer.bayes.sensitivity import Function, shares, shares_of
from hpo.optimizer.bayes.space import Space
from hpo.optimizer.sobol import sobol_points

from ...records import spec_with

FLAT = {name: {"type": "float", "low": 0.0, "high": 0.9} for name in ("dropout", "momentum", "label_smoothing")}
CONDITIONAL = {
    "model": {"type": "categorical", "choices": ["r2plus1d_18", "slowfast_r18"]},
    "dropout": {"type": "float", "low": 0.0, "high": 0.9, "when": {"model": ["slowfast_r18"]}},
}


def _shares(space: Space, function: Function) -> list[float]:
    (found,) = shares(space, function, exponent=13, seed=0)
    return [float(share) for share in found]


def test_a_sum_is_shared_by_the_squares_of_its_weights() -> None:
    space = Space(spec_with(space=FLAT))
    found = _shares(space, lambda points: (3 * points[:, 0] + 4 * points[:, 1])[None])
    assert found == pytest.approx([9 / 25, 16 / 25, 0.0], abs=2e-3)


def test_what_two_parameters_do_together_counts_for_both() -> None:
    """With x and y uniform on [-1/2, 1/2], all variance of x y is that of their interaction."""
    space = Space(spec_with(space=FLAT))
    found = _shares(space, lambda points: ((points[:, 0] - 0.5) * (points[:, 1] - 0.5))[None])
    assert found == pytest.approx([0.5, 0.5, 0.0], abs=5e-3)


def test_a_parameter_under_a_condition_counts_as_often_as_the_condition_holds() -> None:
    """f = u under one of two choices and 0 under the other.

    Drawn again, the choice changes f by u in half of the cases: E[u^2] / 4 = 1/12. The parameter changes it under its
    choice alone: half of 1/12. So the shares are 2/3 and 1/3.
    """
    space = Space(spec_with(space=CONDITIONAL))
    rows = space.from_unit(np.array([[0.75, 0.0], [0.75, 0.5], [0.75, 1.0], [0.25, 0.1], [0.25, 0.9]]))
    points = space.embed(rows)
    assert np.array_equal(points[3], points[4]), "what is not active changes nothing"
    (own,) = np.nonzero(space.columns == 1)[:1]

    def function(points: Array) -> Array:
        # An active number lies on a half circle of length 1, and its angle goes from -90 to 90 degrees.
        circle = points[:, own]
        is_active = np.linalg.norm(circle, axis=1) > 0.1
        angle = np.arctan2(circle[:, 1], circle[:, 0]) / np.pi + 0.5
        return np.where(is_active, angle, 0.0)[None]

    assert function(points)[0] == pytest.approx([0.0, 0.5, 1.0, 0.0, 0.0], abs=1e-9)
    assert _shares(space, function) == pytest.approx([2 / 3, 1 / 3], abs=5e-3)


def test_a_function_that_does_not_change_has_no_shares() -> None:
    assert _shares(Space(spec_with(space=FLAT)), lambda points: np.ones((1, len(points)))) == [0.0, 0.0, 0.0]


def test_intervals_hold_the_truth_and_narrow_with_the_outcomes() -> None:
    space = Space(spec_with(space=FLAT))
    hyper = Hyperparameters(lengthscales=np.ones(3), outputscale=4.0, noise=1e-3, mean=0.0)
    widths = []
    for exponent in (2, 5):
        points = space.embed(space.from_unit(sobol_points(3, 4, exponent)))
        targets = 3 * points[:, 0] + 4 * points[:, 1]
        process = Process(points, targets, np.zeros(len(points)), space.columns, [hyper])
        found = shares_of(space, process, seed=0)
        for name, true in (("dropout", 9 / 25), ("momentum", 16 / 25), ("label_smoothing", 0.0)):
            # A share cannot be negative, so that an interval does not reach down to 0.
            assert found[name].low - 0.05 <= true <= found[name].high + 0.01, (exponent, name, found)
            assert found[name].low <= found[name].value <= found[name].high
        widths.append(sum(one.high - one.low for one in found.values()))
    assert widths[1] < 0.5 * widths[0]
