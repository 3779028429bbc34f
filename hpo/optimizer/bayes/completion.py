"""Completing a partial guess: the best configuration that has the given values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...arrays import Array, Mask
from ...trial import Params
from ..sobol import sobol_points
from .acquisition import Acquisition
from .ascent import ascend
from .search import ASCENT_STARTS, CLOUD_EXPONENT, best_new
from .space import Space


def given(space: Space, values: Params) -> Mask:
    """Return which axes of a space have a value in `values`."""
    return np.array([axis.key in values for axis in space.axes], dtype=bool)


def complete(
    space: Space, acquisition: Acquisition, values: Params, is_new: Callable[[Array], bool], seed: int
) -> Array | None:
    """Return the new row with `values` at which `acquisition` is best; None if only known rows were found.

    Sobol points are scored, and the best of them are improved in the continuous parameters that are not given.
    """
    rows = space.from_unit(sobol_points(space.dimensions, seed, CLOUD_EXPONENT))
    fixed = given(space, values)
    for place in np.flatnonzero(fixed):
        rows[:, place] = space.axes[place].coordinate(values[space.axes[place].key])
    rows = space.with_allowed(rows, values)
    scores = acquisition.values(rows)
    starts = rows[np.argsort(-scores, kind="stable")[:ASCENT_STARTS]]
    reached, there = ascend(acquisition, starts, space.is_continuous & ~fixed & space.active(starts))
    rows, scores = np.concatenate([reached, rows]), np.concatenate([there, scores])
    return best_new(rows, scores, is_new)
