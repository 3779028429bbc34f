"""The most probable hyperparameters of a Gaussian process under priors, found with analytic gradients.

While there are few data, the priors decide more than anything else (`docs/optimizer.md` gives the sources):

- length scales: log-normal around 0.3 sqrt(parameters), spread 0.8 (after Hvarfner et al., 2024, "Vanilla Bayesian
  Optimization Performs Great in High Dimensions", who let the scale grow with the root of the dimension);
- noise variance beyond the known noise: log-normal around exp(-3) of the variance of the data where most outcomes have
  a known noise of their own, as those of trainings do (two trainings of one configuration differ by more than their
  curves show), and around exp(-4) otherwise;
- output scale: log-normal around 1; mean: normal around 0;
- trend: log-normal around 0.5 / sqrt(parameters), spread 1.2. People choose ranges around what they believe in, above
  all of numbers that span decades, so the best configurations seldom lie in the corners; without this belief, a search
  that knows little goes there first. The spread is wide, so that results overrule it.

A fit is a function of the data alone (fixed starts, no memory of earlier fits), so that a restart changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dtrtrs
from scipy.optimize import minimize

from ...arrays import Array, Indices
from .gp import Hyperparameters
from .kernels import DISTANCE_FROM_MIDDLE, Kernel, matern

LENGTHSCALE_SPREAD = 0.8
NOISE_SPREAD = 1.5
_NOISE_CENTRE, _NOISE_CENTRE_OF_NOISY = -4.0, -3.0
OUTPUTSCALE_SPREAD = 1.0
MEAN_SPREAD = 1.0
TREND_CENTRE = 0.5
TREND_SPREAD = 1.2

_SHORT_START = math.log(0.4)
_NOISY_START = math.log(0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The most probable hyperparameters, as a vector of `Evidence`, and their log density up to a constant."""

    vector: Array
    evidence: float
    kernel: Kernel = matern

    @property
    def hyper(self) -> Hyperparameters:
        """The hyperparameters."""
        return hyperparameters(self.vector, self.kernel)


class Evidence:
    """The negative log posterior of the hyperparameters of one data set, with its gradient.

    The vector is (log length scales, log outputscale, log noise, mean, log trend).
    """

    def __init__(self, points: Array, targets: Array, noise: Array, columns: Indices, kernel: Kernel = matern) -> None:
        self.kernel = kernel
        self._targets = targets
        self._noise = noise
        self._from_middle = points[:, columns == DISTANCE_FROM_MIDDLE].sum(axis=1)
        self.parameters = int(columns.max()) + 1
        self._distances = np.stack([_squares(points[:, columns == axis]) for axis in range(self.parameters)])
        self._flat = self._distances.reshape(self.parameters, -1)
        d = self.parameters
        rest = [0.0, noise_centre(noise), 0.0, math.log(TREND_CENTRE / math.sqrt(d))]
        self.centre = np.array([math.log(0.3 * math.sqrt(d))] * d + rest)
        rest = [OUTPUTSCALE_SPREAD, NOISE_SPREAD, MEAN_SPREAD, TREND_SPREAD]
        self.spread = np.array([LENGTHSCALE_SPREAD] * d + rest)

    def __call__(self, vector: Array) -> tuple[float, Array]:
        """Return the value and the gradient; a large value where the covariance cannot be factored."""
        d = self.parameters
        inverse_squares = np.exp(-2 * vector[:d])
        scale, noise = math.exp(vector[d]), math.exp(vector[d + 1])
        factor, kernel, slope = self._factor(vector)
        if factor is None:
            return 1e10, np.zeros_like(vector)
        inverse, _ = dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        residual = self._residual(vector)
        alpha = inverse @ residual
        deviation = (vector - self.centre) / self.spread
        value = 0.5 * residual @ alpha + np.log(np.diag(factor)).sum() + 0.5 * deviation @ deviation
        weight = inverse - np.outer(alpha, alpha)
        gradient = np.empty_like(vector)
        gradient[:d] = -(self._flat @ (weight * slope).ravel()) * scale * inverse_squares
        gradient[d] = 0.5 * scale * np.vdot(weight, kernel)
        gradient[d + 1] = 0.5 * noise * np.trace(weight)
        gradient[d + 2] = -alpha.sum()
        gradient[d + 3] = math.exp(vector[d + 3]) * (alpha @ self._from_middle)
        return float(value), gradient + deviation / self.spread

    def log_likelihood(self, vector: Array) -> float:
        """Return the log marginal likelihood up to a constant; minus infinity if the covariance cannot be factored."""
        factor, _, _ = self._factor(vector)
        if factor is None:
            return -math.inf
        half, _ = dtrtrs(factor, self._residual(vector), lower=1)
        return float(-0.5 * half @ half - np.log(np.diag(factor)).sum())

    def _residual(self, vector: Array) -> Array:
        return np.asarray(self._targets - vector[-2] + math.exp(vector[-1]) * self._from_middle)

    def _factor(self, vector: Array) -> tuple[Array | None, Array, Array]:
        """Return the factor of the covariance (None where there is none), the kernel, and its slope."""
        d, n = self.parameters, len(self._targets)
        kernel, slope = self.kernel((np.exp(-2 * vector[:d]) @ self._flat).reshape(n, n))
        covariance = math.exp(vector[d]) * kernel
        covariance[np.diag_indices(n)] += math.exp(vector[d + 1]) + self._noise
        factor, failed = dpotrf(covariance, lower=1)
        return None if failed else factor, kernel, slope


def fit(evidence: Evidence, start: Array | None = None) -> Fit:
    """Return the most probable hyperparameters found from `start`, or from two fixed starts without one."""
    lower, upper = evidence.centre - 6 * evidence.spread, evidence.centre + 6 * evidence.spread
    found = [
        minimize(
            evidence,
            begin,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(lower, upper, strict=True)),
            options={"maxiter": 60, "ftol": 1e-6, "gtol": 1e-3},
        )
        for begin in (_starts(evidence) if start is None else [start])
    ]
    best = min(found, key=lambda result: float(result.fun))
    return Fit(vector=best.x, evidence=-float(best.fun), kernel=evidence.kernel)


def noise_centre(known: Array) -> float:
    """Return the centre of the prior of the log noise variance, of outcomes with `known` noise variances."""
    return _NOISE_CENTRE_OF_NOISY if np.median(known) > 0 else _NOISE_CENTRE


def hyperparameters(vector: Array, kernel: Kernel = matern) -> Hyperparameters:
    """Return the hyperparameters that a vector of `Evidence` holds."""
    d = len(vector) - 4
    return Hyperparameters(
        lengthscales=np.exp(vector[:d]),
        outputscale=math.exp(vector[d]),
        noise=math.exp(vector[d + 1]),
        mean=float(vector[d + 2]),
        trend=math.exp(vector[d + 3]),
        kernel=kernel,
    )


def _starts(evidence: Evidence) -> list[Array]:
    """Return the centre of the priors, and a start with short length scales and much noise."""
    rough = evidence.centre.copy()
    rough[: evidence.parameters] += _SHORT_START
    rough[evidence.parameters + 1] = _NOISY_START
    return [evidence.centre, rough]


def _squares(points: Array) -> Array:
    difference = points[:, None, :] - points[None, :, :]
    return np.asarray((difference * difference).sum(axis=2))
