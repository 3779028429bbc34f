"""How much each parameter changes a function of configurations: total-order Sobol indices, of one function or of many.

With all parameters drawn at random, the total index of one is half the mean squared change of the function when that
parameter alone is drawn again (Jansen, 1999, "Analysis of variance designs for model output"). What is not active does
not change a configuration: a parameter that exists under one choice only counts as often as that choice is drawn, and
the one that switches it on gets the change that this makes. Rules of a study are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...arrays import Array
from ..sobol import sobol_points
from .gp import Process
from .space import Space

Function = Callable[[Array], Array]
"""Returns values (functions, points) at embedded points (points, columns)."""

_MEAN_EXPONENT: Final = 9
"""The index of the mean is computed from two to the power of this many configurations."""
_MOST_JOINT: Final = 1024
"""Points at which functions are drawn together at most, as their covariance grows with the square."""
_LEAST_EXPONENT: Final = 4
_DRAWS: Final = 64
INTERVAL: Final = (0.05, 0.95)
"""The quantiles of the interval of a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much a parameter matters: its total index, as a share of the sum over all parameters, 0 to 1."""

    value: float
    low: float
    """Where nine of ten functions that fit the outcomes as well have it, from here ..."""
    high: float
    """... to here."""


def shares(space: Space, function: Function, *, exponent: int, seed: int) -> Array:
    """Return the share of each axis of `space`, (functions, axes); zeros for a function that does not change.

    Args:
        exponent: two to the power of this many configurations are drawn.
        seed: of these configurations.
    """
    first, second = np.split(sobol_points(2 * space.dimensions, seed, exponent), 2, axis=1)
    sets = [first]
    for axis in range(space.dimensions):
        changed = first.copy()
        changed[:, axis] = second[:, axis]
        sets.append(changed)
    values = function(np.concatenate([space.embed(space.from_unit(points)) for points in sets]))
    values = values.reshape(len(values), len(sets), -1)
    totals = 0.5 * np.mean((values[:, 1:] - values[:, :1]) ** 2, axis=2)
    sums = totals.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(totals, sums, out=np.zeros_like(totals), where=sums > 0))


def shares_of(space: Space, process: Process, *, seed: int) -> dict[str, Share]:
    """Return the share of each parameter that varies in the mean of a process, and how sure that is."""
    # The mean is asked for in parts: all at once would need the covariance of all points with all observations.
    size = 2**_MEAN_EXPONENT

    def mean(points: Array) -> Array:
        return np.concatenate([process.mean(points[at : at + size]) for at in range(0, len(points), size)])[None]

    def draws(points: Array) -> Array:
        return process.draw(points, _DRAWS, np.random.default_rng(seed))

    most = int(np.log2(_MOST_JOINT / (space.dimensions + 1)))
    (of_mean,) = shares(space, mean, exponent=_MEAN_EXPONENT, seed=seed)
    drawn = shares(space, draws, exponent=max(most, _LEAST_EXPONENT), seed=seed)
    low, high = np.quantile(drawn, INTERVAL, axis=0)
    return {
        axis.key: Share(value=float(value), low=float(min(value, below)), high=float(max(value, above)))
        for axis, value, below, above in zip(space.axes, of_mean, low, high, strict=True)
    }
