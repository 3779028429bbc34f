"""Average over hyperparameters instead of choosing them: adaptive importance sampling with fixed quasi-random points.

Few trials leave hyperparameters open, and a prediction that is made with the most probable ones is too sure of itself.
The prior is a standard normal distribution; the points of each round are drawn around the weighted points of the rounds
before, and all count with the weights of a deterministic mixture (Cornuet et al., 2012, Adaptive multiple importance
sampling).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from ..arrays import Array

_FIRST: Final = 64
"""Number of points from the prior."""
_LATER: Final = 64
"""Number of points of each later round."""
_ROUNDS: Final = 2
_LEAST_EFFECTIVE: Final = 10.0
"""Weights are flattened until the next round is drawn around at least so many points."""
_WIDENING: Final = 1.3
"""Factor of the covariance that the next round is drawn from, so that it reaches beyond the points it knows."""
_FLOOR: Final = 0.02
_KEPT: Final = 48
_NEGLIGIBLE: Final = 1e-3
"""Points with a smaller weight than this share of the largest are left out."""


def weighted_draws(log_likelihood: Callable[[Array], Array], dimensions: int) -> tuple[Array, Array]:
    """Return points, (draws, dimensions), and their weights under a standard normal prior and the likelihood."""
    proposals = [(np.zeros(dimensions), np.eye(dimensions), _FIRST)]
    points = _normal(_FIRST, dimensions, 0)
    known = log_likelihood(points)
    for seed in range(1, _ROUNDS + 1):
        weights = _flattened(_log_weights(points, known, proposals))
        mean = weights @ points
        apart = points - mean
        covariance = _WIDENING * (apart.T * weights) @ apart + _FLOOR * np.eye(dimensions)
        proposals.append((mean, covariance, _LATER))
        found = mean + _normal(_LATER, dimensions, seed) @ np.linalg.cholesky(covariance).T
        points, known = np.concatenate([points, found]), np.concatenate([known, log_likelihood(found)])
    logs = _log_weights(points, known, proposals)
    best = np.argsort(-logs, kind="stable")[:_KEPT]
    weights = np.exp(logs[best] - logs[best[0]])
    kept = weights > _NEGLIGIBLE
    return points[best[kept]], weights[kept] / weights[kept].sum()


def _log_weights(points: Array, known: Array, proposals: list[tuple[Array, Array, int]]) -> Array:
    from scipy.special import logsumexp

    densities = []
    for mean, covariance, count in proposals:
        root = np.linalg.cholesky(covariance)
        scaled = np.linalg.solve(root, (points - mean).T)
        densities.append(math.log(count) - 0.5 * (scaled**2).sum(axis=0) - np.log(np.diagonal(root)).sum())
    return np.asarray(known - 0.5 * (points**2).sum(axis=1) - logsumexp(densities, axis=0))


def _flattened(logs: Array) -> Array:
    """Return weights that are as flat as needed for enough of them to count."""
    power = 1.0
    while True:
        weights = np.exp(power * (logs - logs.max()))
        weights /= weights.sum()
        if 1 / (weights**2).sum() >= min(_LEAST_EFFECTIVE, len(logs) / 2):
            return np.asarray(weights)
        power *= 0.8


def _normal(count: int, dimensions: int, seed: int) -> Array:
    from scipy.special import ndtri
    from scipy.stats import qmc

    points = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed)).random(count)
    return np.asarray(ndtri(np.clip(points, 1e-6, 1 - 1e-6)))
