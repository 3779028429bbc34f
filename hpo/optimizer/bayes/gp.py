"""A Gaussian process with a Matern-5/2 kernel, one length scale per parameter.

    k(x, x') = outputscale * m(d),  d^2 = sum over parameters of |z - z'|^2 / lengthscale^2
    m(d) = (1 + sqrt(5) d + 5 d^2 / 3) exp(-sqrt(5) d)

where z are embedded configurations (`space`). Everything is float64 and in the units of standardised outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SQRT5 = float(np.sqrt(5.0))
_JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What is learned of a process, besides the data."""

    lengthscales: Array
    """One per parameter."""
    outputscale: float
    noise: float
    """Variance of an observation around the function."""
    mean: float


def matern(squared: Array) -> tuple[Array, Array]:
    """Give the kernel and its derivative by the squared distance."""
    scaled = _SQRT5 * np.sqrt(squared)
    decay = np.exp(-scaled)
    return (1 + scaled + (5 / 3) * squared) * decay, (-5 / 6) * (1 + scaled) * decay


def squared_distances(left: Array, right: Array) -> Array:
    """Give the squared distances (rows of left, rows of right) of points."""
    found = -2.0 * (left @ right.T)
    found += (left * left).sum(axis=1)[:, None]
    found += (right * right).sum(axis=1)
    return np.maximum(found, 0.0, out=found)


def safe_cholesky(matrix: Array, scale: float = 1.0) -> Array:
    """Give the lower Cholesky factor, with as little added to the diagonal as it takes.

    Raises:
        numpy.linalg.LinAlgError: the matrix is far from positive definite, or not finite.
    """
    for jitter in _JITTERS:
        try:
            # Cholesky reads one triangle: the diagonal alone changes.
            shifted = matrix + jitter * scale * np.eye(len(matrix)) if jitter else matrix
            return np.asarray(cholesky(shifted, lower=True, check_finite=False))
        except np.linalg.LinAlgError:
            continue
    raise np.linalg.LinAlgError("the covariance is not positive definite")


class Process:
    """A Gaussian process given observations."""

    def __init__(self, points: Array, targets: Array, noise: Array, columns: NDArray[np.intp], hyper: Hyperparameters):
        """Condition on `targets` at embedded `points`; `noise` is added to the variance of each observation."""
        self.hyper = hyper
        self._weights = 1.0 / hyper.lengthscales[columns]
        self._points = points * self._weights
        covariance = hyper.outputscale * matern(squared_distances(self._points, self._points))[0]
        covariance[np.diag_indices_from(covariance)] += hyper.noise + noise
        self._factor = safe_cholesky(covariance, hyper.outputscale)
        half = solve_triangular(self._factor, targets - hyper.mean, lower=True, check_finite=False)
        self._alpha = solve_triangular(self._factor, half, lower=True, trans=1, check_finite=False)

    def joint(self, points: Array) -> tuple[Array, Array]:
        """Give the mean (rows) and the covariance (rows, rows) of the function at embedded points, noise left out."""
        scaled = points * self._weights
        mean, half = self._halves(scaled)
        prior = self.hyper.outputscale * matern(squared_distances(scaled, scaled))[0]
        return mean, prior - half.T @ half

    def marginal(self, points: Array) -> tuple[Array, Array]:
        """Give the mean and the variance of the function at each of embedded points."""
        mean, half = self._halves(points * self._weights)
        return mean, np.maximum(self.hyper.outputscale - np.einsum("ij,ij->j", half, half), 1e-12)

    def _halves(self, scaled: Array) -> tuple[Array, Array]:
        cross = self.hyper.outputscale * matern(squared_distances(self._points, scaled))[0]
        half = solve_triangular(self._factor, cross, lower=True, check_finite=False)
        return self.hyper.mean + cross.T @ self._alpha, half

    def given(self, base: Array, normals: Array) -> Conditioned:
        """Condition on samples of the function at the embedded points `base`, drawn with standard normals.

        `normals` has a row per sample and a column per point of the base.
        """
        return Conditioned(self, base, normals)


class Conditioned:
    """A process given its observations and, in each of several samples, the values at base points.

    All samples share one factor: at a point whose covariance with the base is c, the mean of a sample is that of
    the process plus w' e, and the variance the one of the process less w' w, where w = chol(cov(base))^-1 c and e are
    the normals the sample was drawn with.
    """

    def __init__(self, process: Process, base: Array, normals: Array) -> None:
        self._process = process
        self._normals = normals
        self._base = base * process._weights
        mean, covariance = process.joint(base)
        self._factor = safe_cholesky(covariance + 1e-9 * process.hyper.outputscale * np.eye(len(base)), 1.0)
        self._half = process._halves(self._base)[1]
        self.samples: Array = mean + normals @ self._factor.T
        """The values at the base: (samples, base)."""

    def predict(self, points: Array) -> Prediction:
        """Give what the samples say about embedded points."""
        return Prediction(self, points)


class Prediction:
    """Mean of each sample (samples, points) and variance (points) at embedded points, and the way back to them."""

    def __init__(self, given: Conditioned, points: Array) -> None:
        process = given._process
        self._given = given
        self._scaled = points * process._weights
        scale = process.hyper.outputscale
        self._to_data = squared_distances(process._points, self._scaled)
        self._to_base = squared_distances(given._base, self._scaled)
        cross, self._slope_data = matern(self._to_data)
        near, self._slope_base = matern(self._to_base)
        self._half = solve_triangular(process._factor, scale * cross, lower=True, check_finite=False)
        covariance = scale * near - given._half.T @ self._half
        self._whitened = solve_triangular(given._factor, covariance, lower=True, check_finite=False)
        mean = process.hyper.mean + scale * (cross.T @ process._alpha)
        self.means: Array = mean + given._normals @ self._whitened
        left = scale - np.einsum("ij,ij->j", self._half, self._half)
        left -= np.einsum("ij,ij->j", self._whitened, self._whitened)
        self._is_floored = left <= 1e-10 * scale
        self.variance: Array = np.maximum(left, 1e-10 * scale)

    def pull_back(self, by_means: Array, by_variance: Array) -> Array:
        """Turn derivatives by the means and the variance into a gradient in the embedding (points, columns)."""
        given, process = self._given, self._given._process
        scale = process.hyper.outputscale
        by_variance = np.where(self._is_floored, 0.0, by_variance)
        by_whitened = given._normals.T @ by_means - 2 * by_variance * self._whitened
        by_covariance = solve_triangular(given._factor, by_whitened, lower=True, trans=1, check_finite=False)
        by_half = -2 * by_variance * self._half - given._half @ by_covariance
        by_cross = solve_triangular(process._factor, by_half, lower=True, trans=1, check_finite=False)
        by_cross += process._alpha[:, None] * by_means.sum(axis=0)
        found = _spread(2 * scale * by_cross * self._slope_data, process._points, self._scaled)
        found += _spread(2 * scale * by_covariance * self._slope_base, given._base, self._scaled)
        return np.asarray(found * process._weights)


def _spread(weights: Array, anchors: Array, points: Array) -> Array:
    """Give the sum over anchors of weight times (point - anchor), for each point."""
    return np.asarray(weights.sum(axis=0)[:, None] * points - weights.T @ anchors)
