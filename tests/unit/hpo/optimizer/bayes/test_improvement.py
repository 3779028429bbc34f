"""Expected improvement against numerical integration and BoTorch, cells against BoTorch's hypervolume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from hpo.optimizer.bayes.improvement import cells, is_dominated, log_gain, log_h, log_probability

from .stock import Hypervolume, log_ei_helper


def test_log_h_is_that_of_botorch_and_continues_below_its_range() -> None:
    z = np.concatenate([np.linspace(-60, 8, 401), [-1e3, -1e4, -1e6, -1e9]])
    value, by_cdf, by_pdf = log_h(z)
    assert np.allclose(value[:401], log_ei_helper(torch.tensor(z[:401])).numpy(), rtol=1e-9)
    assert np.isfinite([value, by_cdf, by_pdf]).all()
    # Far below, h(z) is pdf(z) / z^2.
    assert np.allclose(value[401:], norm.logpdf(z[401:]) - 2 * np.log(-z[401:]), rtol=1e-6)
    middle = np.abs(z) < 20
    steps = (log_h(z[middle] + 1e-6)[0] - log_h(z[middle] - 1e-6)[0]) / 2e-6
    assert np.allclose(by_cdf[middle], steps, rtol=1e-5)


@pytest.mark.parametrize(("lower", "upper"), [(0.2, np.inf), (0.2, 0.5), (-1.0, 2.0), (2.5, 2.6)])
def test_the_gain_is_the_integral(lower: float, upper: float) -> None:
    mean, sd = 0.3, 0.7

    def gain(mean: float, sd: float) -> float:
        top = min(upper, mean + 12 * sd)
        inside, _ = quad(lambda f: (f - lower) * norm.pdf(f, mean, sd), lower, top, epsabs=1e-13)
        return float(inside + ((upper - lower) * norm.sf(upper, mean, sd) if np.isfinite(upper) else 0.0))

    value, by_mean, by_sd = log_gain(np.array([mean]), np.array([sd]), np.array([lower]), np.array([upper]))
    assert value[0] == pytest.approx(np.log(gain(mean, sd)), abs=1e-6)
    assert by_mean[0] == pytest.approx(np.log(gain(mean + 1e-4, sd) / gain(mean - 1e-4, sd)) / 2e-4, rel=1e-4)
    assert by_sd[0] == pytest.approx(np.log(gain(mean, sd + 1e-4) / gain(mean, sd - 1e-4)) / 2e-4, rel=1e-4)


def test_tiny_probabilities_are_accurate() -> None:
    mean, sd = np.array([-40.0, -3.0, 0.5, 9.0]), np.full(4, 0.5)
    value, by_mean, by_sd = log_probability(mean, sd, 0.25)
    assert np.allclose(value, norm.logsf(0.25, mean, 0.5))
    numeric = [
        (log_probability(mean + step, sd + grow, 0.25)[0] - log_probability(mean - step, sd - grow, 0.25)[0]) / 2e-6
        for step, grow in ((1e-6, 0.0), (0.0, 1e-6))
    ]
    assert np.allclose([by_mean, by_sd], numeric, rtol=1e-4, atol=1e-6)


@given(count=st.integers(0, 7), objectives=st.integers(1, 4), seed=st.integers(0, 1000), is_coarse=st.booleans())
@settings(max_examples=60, deadline=None)
def test_cells_hold_exactly_what_is_not_dominated(count: int, objectives: int, seed: int, is_coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((count, objectives))
    values = np.round(values * 3) / 3 if is_coarse else values
    front = values[~is_dominated(values)] if count else values
    reference = np.full(objectives, 0.2)
    lower, upper = cells(front, reference)
    clipped = np.clip(np.minimum(upper, 1.0) - lower, 0.0, None).prod(axis=1).sum()
    dominated = Hypervolume(torch.tensor(reference)).compute(torch.tensor(front)) if count else 0.0
    assert clipped == pytest.approx(0.8**objectives - dominated)
    inside = rng.uniform(0.2, 1.0, (200, objectives))
    holding = ((inside[:, None] > lower) & (inside[:, None] < upper)).all(axis=2).sum(axis=1)
    beaten = np.any(np.all(front[None] >= inside[:, None], axis=2), axis=1)
    assert np.array_equal(holding, 1 - beaten)


@pytest.mark.parametrize(("objectives", "count"), [(1, 1), (2, 41), (3, 81)])
def test_cells_are_few_with_three_objectives(objectives: int, count: int) -> None:
    """As many as Lacour et al. (2017) need for 40 points, not their square: an evaluation takes as long."""
    front = np.abs(np.random.default_rng(0).standard_normal((40, objectives)))
    front /= np.linalg.norm(front, axis=1)[:, None]
    assert len(cells(front, np.full(objectives, -0.1))[0]) == count


def test_domination_needs_a_difference() -> None:
    values = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    assert is_dominated(values).tolist() == [False, False, True, False]
