"""Samples of the hyperparameters by a Markov chain, for when there are too few data to determine them.

With a dozen trials the most probable length scales are uncertain, and a search that relies on them alone explores too
little. The acquisition is averaged over samples of the hyperparameters instead (Snoek et al., 2012, "Practical Bayesian
Optimization of Machine Learning Algorithms", section 3.2). The priors are normal in the vector of `fit.Evidence`, so
elliptical slice sampling applies, which has no settings to tune (Murray et al., 2010, "Elliptical slice sampling").
"""

from __future__ import annotations

import math

import numpy as np

from ...arrays import Array
from .fit import Evidence, hyperparameters
from .gp import Hyperparameters

_BURN_IN = 10
_THINNING = 10
_MAX_SHRINKS = 30


def sample(evidence: Evidence, start: Array, count: int) -> list[Hyperparameters]:
    """Return `count` samples of a chain that begins at `start`; the same for the same data."""
    rng = np.random.default_rng(count)
    vector, value = start, evidence.log_likelihood(start)
    found = []
    for step in range(1, _BURN_IN + _THINNING * count + 1):
        vector, value = _move(evidence, vector, value, rng)
        if step > _BURN_IN and (step - _BURN_IN) % _THINNING == 0:
            found.append(hyperparameters(vector, evidence.kernel))
    return found


def _move(evidence: Evidence, vector: Array, value: float, rng: np.random.Generator) -> tuple[Array, float]:
    """Return the next vector of the chain and its log likelihood.

    It lies on the ellipse through `vector` and a draw of the prior, and its likelihood exceeds a random level.
    """
    other = evidence.spread * rng.standard_normal(len(vector))
    level = value + math.log(rng.random())
    angle = 2 * math.pi * rng.random()
    least, most = angle - 2 * math.pi, angle
    for _ in range(_MAX_SHRINKS):
        moved = evidence.centre + (vector - evidence.centre) * math.cos(angle) + other * math.sin(angle)
        reached = evidence.log_likelihood(moved)
        if reached > level:
            return moved, reached
        least, most = (angle, most) if angle < 0 else (least, angle)
        angle = least + (most - least) * rng.random()
    return vector, value
