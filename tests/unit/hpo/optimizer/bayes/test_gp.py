"""The process against scikit-learn and plain linear algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern
from sklearn.gaussian_process.kernels import Kernel as StockKernel

from hpo.optimizer.bayes.fit import Evidence, fit, hyperparameters, noise_centre
from hpo.optimizer.bayes.gp import (
    Hyperparameters,
    Process,
    safe_cholesky,
    squared_distances,
)
from hpo.optimizer.bayes.kernels import DISTANCE_FROM_MIDDLE, Kernel, gaussian, matern
from hpo.optimizer.bayes.slice_sampling import sample

RNG = np.random.default_rng(7)
COLUMNS = np.array([0, 1, 1, 2, DISTANCE_FROM_MIDDLE])
HYPER = Hyperparameters(lengthscales=np.array([0.4, 0.9, 1.6]), outputscale=1.7, noise=0.02, mean=0.3, trend=0.4)
POINTS = RNG.random((25, 5))
TARGETS = np.sin(5 * POINTS[:, 0]) + POINTS[:, 3] + 0.1 * RNG.standard_normal(25)
EXTRA = np.where(np.arange(25) % 5 == 0, 0.3, 0.0)
QUERY = RNG.random((9, 5))


def _process(kernel: Kernel = matern) -> Process:
    return Process(POINTS, TARGETS, EXTRA, COLUMNS, [replace(HYPER, kernel=kernel)])


@pytest.mark.parametrize(
    ("kernel", "stock"),
    [(matern, Matern(HYPER.lengthscales[COLUMNS[:4]], nu=2.5)), (gaussian, RBF(HYPER.lengthscales[COLUMNS[:4]]))],
)
def test_the_posterior_is_that_of_scikit_learn(kernel: Kernel, stock: StockKernel) -> None:
    other = GaussianProcessRegressor(ConstantKernel(1.7) * stock, alpha=HYPER.noise + EXTRA, optimizer=None)
    prior = 0.3 - 0.4 * POINTS[:, 4]
    mean, sd = other.fit(POINTS[:, :4], TARGETS - prior).predict(QUERY[:, :4], return_std=True)
    mean += 0.3 - 0.4 * QUERY[:, 4]
    assert np.allclose(_process(kernel).marginal(QUERY), (mean, sd**2))
    assert np.allclose(_process(kernel).mean(QUERY), mean)


def test_members_equal_separate_processes() -> None:
    other = Hyperparameters(
        lengthscales=np.array([1.0, 0.3, 0.7]), outputscale=0.6, noise=0.1, mean=-0.2, kernel=gaussian
    )
    both = Process(POINTS, TARGETS, EXTRA, COLUMNS, [HYPER, other])
    alone = [Process(POINTS, TARGETS, EXTRA, COLUMNS, [hyper]) for hyper in (HYPER, other)]
    means, variances = zip(*(process.marginal(QUERY) for process in alone), strict=True)
    mixed = np.mean(means, axis=0), np.mean(variances, axis=0) + np.var(means, axis=0)
    assert np.allclose(both.marginal(QUERY), mixed)
    assert np.allclose(both.mean(QUERY), mixed[0])


@pytest.mark.parametrize("kernel", [matern, gaussian])
def test_the_evidence_is_likelihood_times_priors(kernel: Kernel) -> None:
    evidence = Evidence(POINTS, TARGETS, EXTRA, COLUMNS, kernel)

    def direct(vector: np.ndarray) -> float:
        hyper = hyperparameters(vector)
        scaled = POINTS[:, :4] / hyper.lengthscales[COLUMNS[:4]]
        covariance = hyper.outputscale * kernel(squared_distances(scaled, scaled))[0]
        covariance += np.diag(hyper.noise + EXTRA)
        likelihood = multivariate_normal(hyper.mean - hyper.trend * POINTS[:, 4], covariance).logpdf(TARGETS)
        return float(likelihood - 0.5 * (((vector - evidence.centre) / evidence.spread) ** 2).sum())

    vectors = [evidence.centre + 0.5 * RNG.standard_normal(7) for _ in range(4)]
    values = [evidence(vector)[0] for vector in vectors]
    assert np.allclose(np.diff(values), -np.diff([direct(vector) for vector in vectors]))
    for vector in vectors:
        gradient = evidence(vector)[1]
        steps = 1e-5 * np.eye(7)
        numeric = [(evidence(vector + step)[0] - evidence(vector - step)[0]) / 2e-5 for step in steps]
        assert np.allclose(gradient, numeric, rtol=1e-5, atol=1e-6)


def test_a_fit_separates_noise_from_signal_and_relevant_from_irrelevant_parameters() -> None:
    points = RNG.random((80, 3))
    signal = np.sin(6 * points[:, 0])
    columns = np.arange(3)
    quiet = fit(Evidence(points, signal, np.zeros(80), columns)).hyper
    loud = fit(Evidence(points, signal + 0.5 * RNG.standard_normal(80), np.zeros(80), columns)).hyper
    assert quiet.noise < 0.01
    assert 0.12 < loud.noise < 0.5
    assert quiet.lengthscales[0] < 0.5 * quiet.lengthscales[1:].min()


def test_more_noise_is_expected_where_most_outcomes_have_an_error_of_their_own() -> None:
    trainings, exact = noise_centre(np.array([0.01, 0.02, 0.0])), noise_centre(np.array([0.01, 0.0, 0.0]))
    assert trainings > exact
    points, targets = POINTS[:3], np.zeros(3)
    centres = [Evidence(points, targets, known, COLUMNS).centre for known in (np.full(3, 0.01), np.zeros(3))]
    assert centres[0] - centres[1] == pytest.approx([0, 0, 0, 0, trainings - exact, 0, 0])


def test_a_fit_is_at_a_maximum() -> None:
    evidence = Evidence(POINTS, TARGETS, EXTRA, COLUMNS)
    found = fit(evidence)
    hyper = found.hyper
    vector = found.vector
    assert np.allclose(hyperparameters(vector).lengthscales, hyper.lengthscales)
    assert -evidence(vector)[0] == pytest.approx(found.evidence)
    for _ in range(30):
        assert evidence(vector + 0.1 * RNG.standard_normal(7))[0] > -found.evidence - 1e-3


def test_repeated_configurations_can_be_factored() -> None:
    points = np.repeat(POINTS[:4], 5, axis=0)
    process = Process(points, np.tile(TARGETS[:5], 4), np.zeros(20), COLUMNS, [HYPER])
    assert np.isfinite(process.marginal(points)).all()
    factor = safe_cholesky(np.ones((3, 3)))
    assert np.allclose(factor @ factor.T, 1.0, atol=1e-6)
    with pytest.raises(np.linalg.LinAlgError):
        safe_cholesky(-np.eye(2))


def test_samples_of_the_hyperparameters_follow_the_posterior() -> None:
    """Against importance sampling from the priors, with three observations that say little."""
    evidence = Evidence(POINTS[:3], TARGETS[:3], np.zeros(3), COLUMNS)
    drawn = evidence.centre + evidence.spread * np.random.default_rng(1).standard_normal((20000, 7))
    logs = np.array([evidence.log_likelihood(vector) for vector in drawn])
    shares = np.exp(logs - logs.max())
    found = sample(evidence, evidence.centre, 400)
    vectors = np.array(
        [[*np.log(hyper.lengthscales), np.log(hyper.outputscale), hyper.mean, np.log(hyper.trend)] for hyper in found]
    )
    kept = [0, 1, 2, 3, 5, 6]
    assert np.allclose(vectors.mean(axis=0), shares @ drawn[:, kept] / shares.sum(), atol=0.2)
    assert sample(evidence, evidence.centre, 3)[1].noise == sample(evidence, evidence.centre, 3)[1].noise
