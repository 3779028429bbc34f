"""Beliefs of the user about the optimum, in the acquisition: they steer the first trials and fade with the results.

The acquisition is multiplied by the belief to the power beta / n after n trials (Hvarfner et al., 2022, "piBO:
Augmenting Acquisition Functions with User Beliefs", eq. 6), with beta a tenth of the budgeted trials, as in their
experiments. A small share of every belief is spread over the whole range, so that results can overrule a wrong one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from ...arrays import Array
from ...spec import StudySpec
from ...spec.parameters import Prior
from ..prior import SPREADS, WEIGHTS
from .space import Axis, Space

_UNIFORM_SHARE: Final = 0.05
"""The share of a belief about a number that is spread evenly over the range."""
_DEFAULT_BETA: Final = 10.0
"""The weight beta of the belief where the number of trials is not limited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """The log density of the belief over rows of a space, relative to a uniform one, times a power."""

    space: Space
    power: float

    def values(self, rows: Array) -> Array:
        """Return the values at rows; inactive parameters contribute nothing."""
        return self(rows)[0]

    def __call__(self, rows: Array) -> tuple[Array, Array]:
        """Return the values at rows, and their gradient in the coordinates; 0 for categories."""
        active = self.space.active(rows)
        values, gradient = np.zeros(len(rows)), np.zeros(rows.shape)
        for place, axis in enumerate(self.space.axes):
            if axis.parameter.prior is None:
                continue
            value, slope = _belief(axis, axis.parameter.prior, rows[:, place])
            values += np.where(active[:, place], value, 0.0)
            gradient[:, place] = np.where(active[:, place], slope, 0.0)
        return self.power * values, self.power * gradient


def power(spec: StudySpec, trials: int) -> float:
    """Return the power of the belief after this number of `trials`."""
    beta = _DEFAULT_BETA if spec.budget.trials is None else spec.budget.trials / 10
    return beta / max(trials, 1)


def _belief(axis: Axis, prior: Prior, coordinates: Array) -> tuple[Array, Array]:
    """Return the log density of the belief at coordinates of an axis, relative to a uniform one, and its derivative."""
    centre = axis.coordinate(prior.center)
    if axis.is_categorical:
        weight = WEIGHTS[prior.confidence]
        even = math.log(axis.count / (axis.count - 1 + weight))
        return even + np.where(coordinates == centre, math.log(weight), 0.0), np.zeros(len(coordinates))
    sd = SPREADS[prior.confidence]
    normal = NormalDist(centre, sd)
    z = (coordinates - centre) / sd
    scale = (1 - _UNIFORM_SHARE) / ((normal.cdf(1.0) - normal.cdf(0.0)) * sd * math.sqrt(2 * math.pi))
    bell = scale * np.exp(-0.5 * z * z)
    return np.log(bell + _UNIFORM_SHARE), -bell * z / (sd * (bell + _UNIFORM_SHARE))
