"""Samples of the hyperparameters from a normal distribution around the most probable ones.

Cheaper than a chain (`slice_sampling`). With some dozens of observations the density of logarithms is taken to be close
to a normal one (MacKay, 1998, "Choice of Basis for Laplace Approximation"); what the data leave open has the spread of
its prior.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array
from .fit import Evidence, hyperparameters
from .gp import Hyperparameters

_STEP = 1e-3


def sample_around(evidence: Evidence, centre: Array, count: int) -> list[Hyperparameters]:
    """Return samples around the vector `centre`, in pairs that mirror each other; the same for the same data.

    `count`, how many there are, is even.
    """
    # In units of the prior's spread the prior alone has curvature 1, below which nothing is believed.
    curvature = _hessian(evidence, centre) * np.outer(evidence.spread, evidence.spread)
    strengths, ways = np.linalg.eigh(curvature)
    rng = np.random.default_rng(count)
    half = rng.standard_normal((count // 2, len(centre)))
    normals = np.concatenate([half, -half]) / np.sqrt(np.maximum(strengths, 1.0))
    return [hyperparameters(vector, evidence.kernel) for vector in centre + (normals @ ways.T) * evidence.spread]


def _hessian(evidence: Evidence, centre: Array) -> Array:
    """Return the second derivatives, by central differences of the analytic gradient."""
    rows = []
    for place in range(len(centre)):
        step = np.zeros(len(centre))
        step[place] = _STEP
        rows.append((evidence(centre + step)[1] - evidence(centre - step)[1]) / (2 * _STEP))
    found = np.array(rows)
    return (found + found.T) / 2
