"""A Gaussian process with one length scale per parameter.

    k(x, x') = outputscale * kernel(d),  d^2 = sum over parameters of |z - z'|^2 / lengthscale^2

where z are embedded configurations (`space`) and the kernel is one of `kernels`. The mean is a constant less `trend`
times the distance from the middle of the space, where the embedding has a column for it. All numbers are float64, in
units of standardised outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import cholesky
from scipy.linalg.lapack import dtrtri

from ...arrays import Array, Indices
from .kernels import DISTANCE_FROM_MIDDLE, Kernel, matern

_JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """The hyperparameters of one process."""

    lengthscales: Array
    """One per parameter."""
    outputscale: float
    noise: float
    """Variance of an observation around the function."""
    mean: float
    trend: float = 0.0
    """How much the mean falls from the middle of the space to the end of one parameter's range."""
    kernel: Kernel = matern


def squared_distances(left: Array, right: Array) -> Array:
    """Return the squared distances (..., rows of left, rows of right) of points."""
    found = -2.0 * (left @ np.swapaxes(right, -1, -2))
    found += np.einsum("...ij,...ij->...i", left, left)[..., :, None]
    found += np.einsum("...ij,...ij->...i", right, right)[..., None, :]
    return np.maximum(found, 0.0, out=found)


def safe_cholesky(matrix: Array, scale: float = 1.0) -> Array:
    """Return the lower Cholesky factor, with as little added to the diagonal as is needed.

    Raises:
        numpy.linalg.LinAlgError: the matrix is far from positive definite, or not finite.
    """
    for jitter in _JITTERS:
        try:
            # Cholesky reads one triangle, so that only the diagonal changes.
            shifted = matrix + jitter * scale * np.eye(len(matrix)) if jitter else matrix
            return np.asarray(cholesky(shifted, lower=True, check_finite=False))
        except np.linalg.LinAlgError:
            continue
    raise np.linalg.LinAlgError("the covariance is not positive definite")


def _factors(matrices: Array, scales: Array) -> Array:
    """Return the lower Cholesky factors of matrices (members, n, n)."""
    return np.stack(
        [safe_cholesky(matrix, float(scale)) for matrix, scale in zip(matrices, scales.ravel(), strict=True)]
    )


def _inverses(factors: Array) -> Array:
    """Return the inverses of lower triangular matrices (members, n, n)."""
    return np.stack([dtrtri(factor, lower=1)[0] for factor in factors])


class Process:
    """Gaussian processes conditioned on the same observations, one member per set of hyperparameters.

    The members are computed together, because for matrices this small the calls cost more than the arithmetic.
    """

    def __init__(
        self,
        points: Array,
        targets: Array,
        noise: Array,
        columns: Indices,
        hypers: Sequence[Hyperparameters],
    ) -> None:
        """Condition on `targets` at embedded `points`; `noise` is added to the variance of each observation."""
        self.members = len(hypers)
        self.hypers = tuple(hypers)
        """The hyperparameters of the members, in order."""
        self.observations = len(points)
        """The number of observations."""
        self._runs = _runs(self.hypers)
        self._has_trend = columns == DISTANCE_FROM_MIDDLE
        inverses = [np.where(self._has_trend, 0.0, 1.0 / hyper.lengthscales[columns]) for hyper in hypers]
        self._weights = np.stack(inverses)[:, None, :]
        self._scales = np.array([hyper.outputscale for hyper in hypers])[:, None, None]
        self._constants = np.array([hyper.mean for hyper in hypers])[:, None]
        self._trends = np.array([hyper.trend for hyper in hypers])[:, None]
        self._points = points * self._weights
        covariance = self._scales * self.kernel(squared_distances(self._points, self._points))[0]
        diagonal = np.arange(len(points))
        covariance[:, diagonal, diagonal] += np.array([hyper.noise for hyper in hypers])[:, None] + noise
        self._inverse = _inverses(_factors(covariance, self._scales))
        half = self._inverse @ (targets - self._prior_means(points))[:, :, None]
        self._alpha = (np.swapaxes(self._inverse, 1, 2) @ half)[:, :, 0]

    def joint(self, points: Array) -> tuple[Array, Array]:
        """Return mean (members, rows) and covariance (members, rows, rows) of the function at embedded points."""
        scaled = points * self._weights
        mean, half = self._halves(points, scaled)
        prior = self._scales * self.kernel(squared_distances(scaled, scaled))[0]
        return mean, prior - np.swapaxes(half, 1, 2) @ half

    def mean(self, points: Array) -> Array:
        """Return the mean of the function at embedded points (n, columns), averaged over the members: (n,)."""
        cross = self.kernel(squared_distances(self._points, points * self._weights))[0]
        gains = np.einsum("mij,mi->mj", self._scales * cross, self._alpha)
        return np.asarray((self._prior_means(points) + gains).mean(axis=0))

    def marginal(self, points: Array) -> tuple[Array, Array]:
        """Return mean and variance of the mixture of the members at embedded points (n, columns): (n,) each."""
        means, half = self._halves(points, points * self._weights)
        variances = np.maximum(self._scales[:, 0] - np.einsum("mij,mij->mj", half, half), 1e-12)
        return means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)

    def kernel(self, squared: Array) -> tuple[Array, Array]:
        """Return the kernels of the members and their derivatives by squared distances (members, ...)."""
        if len(self._runs) == 1:
            return self.hypers[0].kernel(squared)
        values, slopes = np.empty_like(squared), np.empty_like(squared)
        for kernel, members in self._runs:
            values[members], slopes[members] = kernel(squared[members])
        return values, slopes

    def _prior_means(self, points: Array) -> Array:
        """Return the means before any observation, (members, points)."""
        return np.asarray(self._constants - self._trends * points[:, self._has_trend].sum(axis=1))

    def _halves(self, points: Array, scaled: Array) -> tuple[Array, Array]:
        cross = self._scales * self.kernel(squared_distances(self._points, scaled))[0]
        return self._prior_means(points) + np.einsum("mij,mi->mj", cross, self._alpha), self._inverse @ cross


def _runs(hypers: Sequence[Hyperparameters]) -> list[tuple[Kernel, slice]]:
    """Return the runs of members that have the same kernel."""
    starts = [0, *(at for at in range(1, len(hypers)) if hypers[at].kernel is not hypers[at - 1].kernel), len(hypers)]
    return [(hypers[start].kernel, slice(start, stop)) for start, stop in pairwise(starts)]


class Conditioned:
    """A process conditioned on its observations and, in each of several samples, on sampled values at base points.

    All samples of a member share one Cholesky factor. At a point with covariance c to the base points, the mean of a
    sample is the mean of the process plus w' e, and its variance is the variance of the process minus w' w, where
    w = chol(cov(base))^-1 c and e are the normals that the sample was drawn with.
    """

    def __init__(self, process: Process, base: Array, normals: Array) -> None:
        """Sample at the embedded points `base` with standard normals (members, samples, base)."""
        self._process = process
        self._normals = normals
        self._base = base * process._weights
        mean, covariance = process.joint(base)
        places = np.arange(len(base))
        covariance[:, places, places] += 1e-9 * process._scales[:, :, 0]
        factors = _factors(covariance, process._scales)
        self._inverse = _inverses(factors)
        self._half = process._halves(base, self._base)[1]
        self.samples: Array = mean[:, None, :] + normals @ np.swapaxes(factors, 1, 2)
        """The sampled values at the base points: (members, samples, base)."""

    def predict(self, points: Array) -> Prediction:
        """Return means and variances at embedded points, given each sample."""
        return Prediction(self, points)


class Prediction:
    """Means (members, samples, points) and variances (members, points) at embedded points, and their gradients."""

    def __init__(self, given: Conditioned, points: Array) -> None:
        process = given._process
        self._given = given
        self._scaled = points * process._weights
        scales = process._scales
        cross, self._slope_data = process.kernel(squared_distances(process._points, self._scaled))
        near, self._slope_base = process.kernel(squared_distances(given._base, self._scaled))
        self._half = process._inverse @ (scales * cross)
        covariance = scales * near - np.swapaxes(given._half, 1, 2) @ self._half
        self._whitened = given._inverse @ covariance
        mean = process._prior_means(points) + scales[:, 0] * np.einsum("mij,mi->mj", cross, process._alpha)
        self.means: Array = mean[:, None, :] + given._normals @ self._whitened
        left = scales[:, 0] - np.einsum("mij,mij->mj", self._half, self._half)
        left -= np.einsum("mij,mij->mj", self._whitened, self._whitened)
        floor = 1e-10 * scales[:, 0]
        self._is_floored = left <= floor
        self.variances: Array = np.maximum(left, floor)

    def pull_back(self, by_means: Array, by_variances: Array) -> Array:
        """Return the gradient in the embedding (points, columns), from derivatives by the means and the variances."""
        given, process = self._given, self._given._process
        by_variances = np.where(self._is_floored, 0.0, by_variances)[:, None, :]
        by_whitened = np.swapaxes(given._normals, 1, 2) @ by_means - 2 * by_variances * self._whitened
        by_near = np.swapaxes(given._inverse, 1, 2) @ by_whitened
        by_half = -2 * by_variances * self._half - given._half @ by_near
        by_cross = np.swapaxes(process._inverse, 1, 2) @ by_half
        by_cross += process._alpha[:, :, None] * by_means.sum(axis=1)[:, None, :]
        found = _spread(2 * process._scales * by_cross * self._slope_data, process._points, self._scaled)
        found += _spread(2 * process._scales * by_near * self._slope_base, given._base, self._scaled)
        gradient = (found * process._weights).sum(axis=0)
        falling = (by_means.sum(axis=1) * process._trends).sum(axis=0)
        return np.asarray(gradient - np.where(process._has_trend, falling[:, None], 0.0))


def _spread(weights: Array, anchors: Array, points: Array) -> Array:
    """Return the sum over anchors of weight times (point - anchor), for each point."""
    return np.asarray(weights.sum(axis=1)[:, :, None] * points - np.swapaxes(weights, 1, 2) @ anchors)
