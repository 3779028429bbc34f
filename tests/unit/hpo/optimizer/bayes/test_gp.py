"""The process against scikit-learn, plain linear algebra and BoTorch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from hpo.optimizer.bayes.fit import Evidence, fit, hyperparameters
from hpo.optimizer.bayes.gp import Conditioned, Hyperparameters, Process, matern, safe_cholesky, squared_distances

RNG = np.random.default_rng(7)
COLUMNS = np.array([0, 1, 1, 2])
HYPER = Hyperparameters(lengthscales=np.array([0.4, 0.9, 1.6]), outputscale=1.7, noise=0.02, mean=0.3)
POINTS = RNG.random((25, 4))
TARGETS = np.sin(5 * POINTS[:, 0]) + POINTS[:, 3] + 0.1 * RNG.standard_normal(25)
EXTRA = np.where(np.arange(25) % 5 == 0, 0.3, 0.0)
QUERY = RNG.random((9, 4))


def _process() -> Process:
    return Process(POINTS, TARGETS, EXTRA, COLUMNS, HYPER)


def test_the_posterior_is_that_of_scikit_learn() -> None:
    kernel = ConstantKernel(1.7) * Matern(HYPER.lengthscales[COLUMNS], nu=2.5)
    other = GaussianProcessRegressor(kernel, alpha=HYPER.noise + EXTRA, optimizer=None)
    mean, covariance = other.fit(POINTS, TARGETS - 0.3).predict(QUERY, return_cov=True)
    found = _process().joint(QUERY)
    assert np.allclose(found[0], mean + 0.3)
    assert np.allclose(found[1], covariance)
    marginal = _process().marginal(QUERY)
    assert np.allclose(marginal, (found[0], np.diag(found[1])))


def test_samples_at_a_base_are_noiseless_observations() -> None:
    base = QUERY[:3]
    normals = RNG.standard_normal((5, 3))
    given = Conditioned(_process(), base, normals)
    predicted = given.predict(QUERY[3:])
    mean, covariance = _process().joint(QUERY)
    inside = np.linalg.inv(covariance[:3, :3])
    for sample, means in zip(given.samples, predicted.means, strict=True):
        assert np.allclose(means, mean[3:] + covariance[3:, :3] @ inside @ (sample - mean[:3]), atol=1e-5)
    left = covariance[3:, 3:] - covariance[3:, :3] @ inside @ covariance[:3, 3:]
    assert np.allclose(predicted.variance, np.diag(left), atol=1e-6)
    assert np.allclose(
        np.cov(Conditioned(_process(), base, RNG.standard_normal((20000, 3))).samples.T), covariance[:3, :3], atol=0.02
    )


def test_the_gradient_of_a_prediction() -> None:
    given = Conditioned(_process(), QUERY[:3], RNG.standard_normal((5, 3)))
    by_means, by_variance = RNG.standard_normal((5, 6)), RNG.standard_normal(6)

    def value(points: np.ndarray) -> np.ndarray:
        predicted = given.predict(points)
        return (by_means * predicted.means).sum(axis=0) + by_variance * predicted.variance

    points = QUERY[3:]
    found = given.predict(points).pull_back(by_means, by_variance)
    for column in range(4):
        step = np.zeros(4)
        step[column] = 1e-6
        assert np.allclose(found[:, column], (value(points + step) - value(points - step)) / 2e-6, rtol=1e-5, atol=1e-6)


def test_the_evidence_is_likelihood_times_priors() -> None:
    evidence = Evidence(POINTS, TARGETS, EXTRA, COLUMNS)

    def direct(vector: np.ndarray) -> float:
        hyper = hyperparameters(vector)
        scaled = POINTS / hyper.lengthscales[COLUMNS]
        covariance = hyper.outputscale * matern(squared_distances(scaled, scaled))[0]
        covariance += np.diag(hyper.noise + EXTRA)
        likelihood = multivariate_normal(np.full(25, hyper.mean), covariance).logpdf(TARGETS)
        return float(likelihood - 0.5 * (((vector - evidence.centre) / evidence.spread) ** 2).sum())

    vectors = [evidence.centre + 0.5 * RNG.standard_normal(6) for _ in range(4)]
    values = [evidence(vector)[0] for vector in vectors]
    assert np.allclose(np.diff(values), -np.diff([direct(vector) for vector in vectors]))
    for vector in vectors:
        gradient = evidence(vector)[1]
        steps = 1e-5 * np.eye(6)
        numeric = [(evidence(vector + step)[0] - evidence(vector - step)[0]) / 2e-5 for step in steps]
        assert np.allclose(gradient, numeric, rtol=1e-5, atol=1e-6)


def test_a_fit_tells_noise_from_signal_and_what_matters_from_what_does_not() -> None:
    points = RNG.random((80, 3))
    signal = np.sin(6 * points[:, 0])
    columns = np.arange(3)
    quiet = fit(points, signal, np.zeros(80), columns).hyper
    loud = fit(points, signal + 0.5 * RNG.standard_normal(80), np.zeros(80), columns).hyper
    assert quiet.noise < 0.01
    assert 0.12 < loud.noise < 0.5
    assert quiet.lengthscales[0] < 0.5 * quiet.lengthscales[1:].min()


def test_a_fit_is_at_a_maximum() -> None:
    found = fit(POINTS, TARGETS, EXTRA, COLUMNS)
    evidence = Evidence(POINTS, TARGETS, EXTRA, COLUMNS)
    hyper = found.hyper
    vector = np.array([*np.log(hyper.lengthscales), np.log(hyper.outputscale), np.log(hyper.noise), hyper.mean])
    assert -evidence(vector)[0] == pytest.approx(found.evidence)
    for _ in range(30):
        assert evidence(vector + 0.1 * RNG.standard_normal(6))[0] > -found.evidence - 1e-3


def test_repeated_configurations_can_be_factored() -> None:
    points = np.repeat(POINTS[:4], 5, axis=0)
    process = Process(points, np.tile(TARGETS[:5], 4), np.zeros(20), COLUMNS, HYPER)
    assert np.isfinite(process.joint(points)[0]).all()
    factor = safe_cholesky(np.ones((3, 3)))
    assert np.allclose(factor @ factor.T, 1.0, atol=1e-6)
    with pytest.raises(np.linalg.LinAlgError):
        safe_cholesky(-np.eye(2))
