"""Transforms of what is modelled: monotone, invertible, and chosen where they help."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.optimizer.bayes.outcome import (
    Transform,
    constraint_transforms,
    log_jacobian,
    objective_transforms,
    standardised,
)

GAINS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30).map(np.array)


@given(gains=GAINS)
@settings(max_examples=100, deadline=None)
def test_transforms_keep_the_order_and_are_inverted(gains: np.ndarray) -> None:
    for transform in objective_transforms(gains):
        targets = transform.forward(gains)
        assert np.isfinite(targets).all()
        order = np.argsort(gains, kind="stable")
        assert (np.diff(targets[order]) >= 0).all()
        kept = np.maximum(gains, transform.fence)
        assert np.allclose(transform.inverse(targets), kept, rtol=1e-6, atol=1e-6 * max(1.0, np.ptp(kept)))


@pytest.mark.parametrize(
    "transform",
    [Transform(scale=2.0, centre=1.0), Transform(ceiling=3.0, scale=0.5), Transform(floor=-1.0, centre=2.0)],
)
def test_slopes_and_jacobian(transform: Transform) -> None:
    gains = np.array([0.1, 0.9, 2.0])
    numeric = (transform.forward(gains + 1e-6) - transform.forward(gains - 1e-6)) / 2e-6
    assert np.allclose(transform.slope(gains), numeric)
    assert log_jacobian(transform, gains) == pytest.approx(np.log(numeric).sum())


def test_targets_are_standardised_and_a_constant_stays_finite() -> None:
    gains = np.array([0.1, 0.2, 0.7, 0.4])
    targets = standardised(Transform(ceiling=1.0), gains).forward(gains)
    assert (targets.mean(), targets.std()) == (pytest.approx(0), pytest.approx(1))
    (only,) = objective_transforms(np.full(5, 0.3))
    assert only.forward(np.full(5, 0.3)).tolist() == [0.0] * 5


def test_no_ceiling_lies_within_the_noise() -> None:
    gains = np.array([0.1, 0.2, 0.7, 0.4, 0.3])  # ceilings 0.45 and 0.045 above the best
    kept = {sd: [t.ceiling for t in objective_transforms(gains, noise_sd=sd)] for sd in (0.0, 0.03, 0.3)}
    assert [len(ceilings) for ceilings in kept.values()] == [3, 2, 1]
    assert kept[0.03] == [None, pytest.approx(0.7 + 0.45)]


def test_a_few_accuracies_that_are_alike_have_small_targets() -> None:
    """The spread of shares is believed to be a quarter of the distance from the nearer end; of losses it is not."""
    alike = np.array([0.30, 0.31, 0.29, 0.30])
    assert np.ptp(objective_transforms(alike)[0].forward(alike)) < 0.6
    assert np.ptp(objective_transforms(-alike)[0].forward(-alike)) > 2
    many = np.tile(alike, 200)
    assert objective_transforms(many)[0].forward(many).std() > 0.8


@pytest.mark.parametrize("unit", [1e-80, 1e-12, 1.0, 1e12, 1e80])
def test_the_unit_of_a_metric_does_not_matter(unit: float) -> None:
    gains = -np.array([1.0, 1.2, 1.7, 1.4, 1.1])
    targets = [transform.forward(gains) for transform in objective_transforms(gains)]
    assert np.allclose([transform.forward(unit * gains) for transform in objective_transforms(unit * gains)], targets)


def test_the_threshold_of_an_objective_has_a_finite_target() -> None:
    gains = np.array([0.1, 0.2, 0.7, 0.4])  # ceilings at 1.2 and 0.75
    for threshold, count in ((0.5, 3), (0.9, 2), (1.5, 1)):
        found = objective_transforms(gains, threshold)
        assert len(found) == count
        assert all(np.isfinite(transform.forward(np.array([threshold]))).all() for transform in found)


def test_a_diverged_loss_does_not_flatten_the_others() -> None:
    gains = -np.array([0.1, 0.2, 0.3, 0.25, 0.15, 0.4, 0.35, 1e9])
    targets = objective_transforms(gains)[0].forward(gains)
    assert np.ptp(targets[:7]) > 0.3
    assert targets.argmin() == 7


def test_outcomes_that_gather_near_the_best_do_not_hide_the_other_differences() -> None:
    spread = -np.linspace(1.0, 3.0, 10)
    gathered = -1.0 - 1e-6 * np.linspace(0.0, 1.0, 90)
    before, after = objective_transforms(spread), objective_transforms(np.concatenate([spread, gathered]))
    assert [t.ceiling for t in after] == [t.ceiling for t in before]
    assert np.ptp(after[-1].forward(gathered)) < 1e-4


def test_sizes_may_be_modelled_by_their_logarithm() -> None:
    memory = -np.array([1.0, 2.0, 4.0, 8.0])  # memory <= 6
    plain, logarithm = constraint_transforms(memory, -6.0)
    assert np.allclose(np.diff(logarithm.forward(memory)), np.diff(logarithm.forward(memory))[0])
    assert logarithm.forward(np.array([-6.0]))[0] > logarithm.forward(memory)[3]
    assert len(constraint_transforms(memory, 6.0)) == 1
    assert plain.forward(memory).std() == pytest.approx(1)


def test_gains_beyond_the_end_of_a_logarithm_have_infinite_targets() -> None:
    assert Transform(ceiling=0.0).forward(np.array([0.5]))[0] == np.inf
