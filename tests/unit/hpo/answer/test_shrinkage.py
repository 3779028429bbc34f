"""Expected true values, and the probability to be the best, against closed forms and draws of a known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.answer.shrinkage import chances_to_be_best, shrunken
from hpo.arrays import Array

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=12)


def test_without_noise_a_value_is_what_it_is() -> None:
    means = np.array([0.2, 0.5, 0.9])
    expected, variances = shrunken(means, np.zeros(3))
    np.testing.assert_allclose(expected, means, atol=1e-12)
    np.testing.assert_allclose(variances, 0.0, atol=1e-12)


def test_of_one_configuration_nothing_is_taken_off() -> None:
    expected, variances = shrunken(np.array([0.3]), np.array([0.01]))
    assert expected == pytest.approx(0.3)
    assert variances == pytest.approx(0.01, rel=0.1)


def test_equal_values_stay_where_they_are_and_are_surer() -> None:
    expected, variances = shrunken(np.full(4, 0.3), np.full(4, 0.01))
    assert expected == pytest.approx(0.3)
    assert 0.01 / 4 < variances[0] < 0.01


def test_of_many_normal_values_the_expectation_is_that_of_the_normal_model() -> None:
    """True values N(0, 1) with noise of variance 1: half the way to the mean, and a variance of one half."""
    rng = np.random.default_rng(0)
    means = math.sqrt(2) * rng.standard_normal(600)
    expected, variances = shrunken(means, np.ones(600))
    middle = np.abs(means) < 2
    assert np.abs(expected - means / 2)[middle].max() < 0.3
    assert variances[middle].mean() == pytest.approx(0.5, abs=0.1)


def test_the_best_are_drawn_to_their_own_cluster_and_not_to_the_dead() -> None:
    rng = np.random.default_rng(1)
    true = np.repeat([0.1, 0.7], 15)
    noisy = true + 0.05 * rng.standard_normal(30)
    expected, _ = shrunken(noisy, np.full(30, 0.05**2))
    best = int(np.argmax(noisy))
    normal = noisy.mean() + (noisy[best] - noisy.mean()) * (1 - 0.05**2 / noisy.var())
    assert normal > noisy[best] - 0.015, "one normal distribution for all takes off little"
    assert expected[best] < noisy[best] - 0.03
    assert expected[best] == pytest.approx(0.7, abs=0.035)


def test_what_is_expected_of_the_best_is_right_on_average() -> None:
    rng = np.random.default_rng(2)
    shown, told = [], []
    for _ in range(200):
        true = 0.5 + 0.05 * rng.standard_normal(20)
        noisy = true + 0.05 * rng.standard_normal(20)
        expected, _ = shrunken(noisy, np.full(20, 0.05**2))
        best = int(np.argmax(noisy))
        shown.append(noisy[best] - true[best])
        told.append(expected[best] - true[best])
    assert np.mean(shown) > 0.05
    assert abs(float(np.mean(told))) < 0.01


def test_the_less_is_known_of_the_spread_the_less_sure_is_what_is_taken_off() -> None:
    """Twelve configurations that differ by less than the noise: the truth of the best lies within the interval."""
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(300):
        true = 0.02 * rng.standard_normal(12)
        noisy = true + 0.03 * rng.standard_normal(12)
        expected, variances = shrunken(noisy, np.full(12, 0.03**2))
        best = int(np.argmax(noisy))
        covered.append(abs(expected[best] - true[best]) <= 1.96 * math.sqrt(variances[best]))
    assert np.mean(covered) > 0.9


@given(VALUES, st.floats(1e-4, 1.0))
def test_a_higher_value_of_the_same_noise_is_expected_to_be_higher(values: list[float], variance: float) -> None:
    means = np.sort(np.array(values))
    expected, _ = shrunken(means, np.full(len(means), variance))
    assert (np.diff(expected) >= -1e-9).all()
    slack = 0.2 * math.sqrt(variance)
    assert means[0] - slack <= expected[0]
    assert expected[-1] <= means[-1] + slack


@given(VALUES)
def test_the_order_does_not_matter(values: list[float]) -> None:
    means, variances = np.array(values), np.linspace(0.01, 0.1, len(values))
    order = np.random.default_rng(len(values)).permutation(len(values))
    for place in (0, 1):
        in_order = _both(means, variances)[place]
        np.testing.assert_allclose(in_order[order], _both(means[order], variances[order])[place], atol=1e-7)


def _both(means: Array, variances: Array) -> tuple[Array, Array]:
    return shrunken(means, variances)[0], chances_to_be_best(means, variances)


def test_the_chance_between_two_is_the_normal_one() -> None:
    for gap in (0.0, 0.5, 2.0):
        first, second = chances_to_be_best(np.array([gap, 0.0]), np.array([0.3, 0.7]))
        assert first == pytest.approx(0.5 * math.erfc(-gap / math.sqrt(2)), abs=0.005)
        assert first + second == pytest.approx(1)


def test_equals_share_the_chance_and_what_is_far_behind_has_none() -> None:
    np.testing.assert_allclose(chances_to_be_best(np.zeros(3), np.ones(3)), 1 / 3)
    np.testing.assert_allclose(chances_to_be_best(np.zeros(3), np.zeros(3)), 1 / 3)
    np.testing.assert_allclose(chances_to_be_best(np.array([1.0, 0.0]), np.zeros(2)), [1, 0])


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(1e-6, 1)), min_size=1, max_size=100))
def test_chances_are_probabilities(beliefs: list[tuple[float, float]]) -> None:
    means, variances = np.array(beliefs).T
    found = chances_to_be_best(means, variances)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()


def test_many_configurations_are_few_contenders() -> None:
    means = np.concatenate([np.zeros(500), [0.9, 1.0]])
    found = chances_to_be_best(means, np.full(502, 0.01))
    draws = np.random.default_rng(3).normal(means, 0.1, (20_000, 502)).argmax(axis=1)
    assert found[-2:] == pytest.approx([(draws == 500).mean(), (draws == 501).mean()], abs=0.02)


@pytest.mark.parametrize("diverged", [-1e6, -1e9, -1e15])
def test_a_diverged_loss_does_not_hide_which_one_is_the_best(diverged: float) -> None:
    losses = np.array([-0.30, -0.50, -0.52, diverged])
    chances = chances_to_be_best(losses, np.full(4, 1e-4))
    np.testing.assert_allclose(chances, [1, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("diverged", [[-1e6], [-1e15, -3e4], [-1e3] * 30])
def test_a_diverged_loss_changes_nothing_of_what_is_taken_off_the_others(diverged: list[float]) -> None:
    rng = np.random.default_rng(5)
    losses = -0.5 + 0.05 * rng.standard_normal(20)
    alone, sure = shrunken(losses, np.full(20, 0.04**2))
    assert losses.max() - alone.max() > 0.01
    count = 20 + len(diverged)
    expected, variances = shrunken(np.concatenate([losses, diverged]), np.full(count, 0.04**2))
    np.testing.assert_allclose(expected[:20], alone)
    np.testing.assert_allclose(variances[:20], sure)
    np.testing.assert_allclose(expected[20:], diverged)


def test_dead_configurations_are_part_of_the_distribution() -> None:
    """A third of shares at chance lie no farther from the others than these from each other, times a few."""
    rng = np.random.default_rng(6)
    values = np.concatenate([0.1 + 0.01 * rng.standard_normal(10), 0.6 + 0.1 * rng.standard_normal(20)])
    expected, _ = shrunken(values, np.full(30, 0.03**2))
    assert (expected[:10] != values[:10]).all()
