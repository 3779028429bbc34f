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
        self.noise = float(np.mean([hyper.noise for hyper in hypers]))
        """Variance of an observation around the function, averaged over the members."""
        self._runs = _runs(self.hypers)
        self._has_trend = columns == DISTANCE_FROM_MIDDLE
        inverses = [np.where(self._has_trend, 0.0, 1.0 / hyper.lengthscales[columns]) for hyper in hypers]
        self._weights = np.stack(inverses)[:, None, :]
        self._scales = np.array([hyper.outputscale for hyper in hypers])[:, None, None]
        self._constants = np.array([hyper.mean for hyper in hypers])[:, None]
        self._trends = np.array([hyper.trend for hyper in hypers])[:, None]
        self._points = points * self._weights
        covariance = self._scales * self._kernel(squared_distances(self._points, self._points))
        diagonal = np.arange(len(points))
        covariance[:, diagonal, diagonal] += np.array([hyper.noise for hyper in hypers])[:, None] + noise
        self._inverse = _inverses(_factors(covariance, self._scales))
        half = self._inverse @ (targets - self._prior_means(points))[:, :, None]
        self._alpha = (np.swapaxes(self._inverse, 1, 2) @ half)[:, :, 0]

    def mean(self, points: Array) -> Array:
        """Return the mean of the function at embedded points (n, columns), averaged over the members: (n,)."""
        return np.asarray(self._means(points, self._cross(points)).mean(axis=0))

    def marginal(self, points: Array) -> tuple[Array, Array]:
        """Return mean and variance of the mixture of the members at embedded points (n, columns): (n,) each."""
        cross = self._cross(points)
        means, half = self._means(points, cross), self._inverse @ cross
        variances = np.maximum(self._scales[:, 0] - np.einsum("mij,mij->mj", half, half), 1e-12)
        return means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)

    def draw(self, points: Array, count: int, generator: np.random.Generator) -> Array:
        """Return functions drawn from the members in turn, at embedded points (n, columns): (count, n)."""
        cross = self._cross(points)
        means, half = self._means(points, cross), self._inverse @ cross
        found = np.empty((count, len(points)))
        for member, hyper in enumerate(self.hypers):
            placed = points * self._weights[member]
            scale = float(hyper.outputscale)
            covariance = scale * hyper.kernel(squared_distances(placed, placed))[0] - half[member].T @ half[member]
            noise = generator.standard_normal((len(found[member :: self.members]), len(points)))
            found[member :: self.members] = means[member] + noise @ safe_cholesky(covariance, scale).T
        return found

    def _kernel(self, squared: Array) -> Array:
        """Return the kernels of the members (members, ...) of squared distances."""
        if len(self._runs) == 1:
            return self.hypers[0].kernel(squared)[0]
        values = np.empty_like(squared)
        for kernel, members in self._runs:
            values[members] = kernel(squared[members])[0]
        return values

    def _prior_means(self, points: Array) -> Array:
        """Return the means before any observation, (members, points)."""
        return np.asarray(self._constants - self._trends * points[:, self._has_trend].sum(axis=1))

    def _cross(self, points: Array) -> Array:
        """Return the covariances of the observations and points, (members, observations, points)."""
        return np.asarray(self._scales * self._kernel(squared_distances(self._points, points * self._weights)))

    def _means(self, points: Array, cross: Array) -> Array:
        """Return the means at points, (members, points)."""
        return np.asarray(self._prior_means(points) + np.einsum("mij,mi->mj", cross, self._alpha))


def _runs(hypers: Sequence[Hyperparameters]) -> list[tuple[Kernel, slice]]:
    """Return the runs of members that have the same kernel."""
    starts = [0, *(at for at in range(1, len(hypers)) if hypers[at].kernel is not hypers[at - 1].kernel), len(hypers)]
    return [(hypers[start].kernel, slice(start, stop)) for start, stop in pairwise(starts)]
