"""The best configuration that has given values: what a partial guess of a person leaves open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from ...trial import Params
from ..sobol import sobol_points
from .acquisition import Acquisition
from .arrays import Array, Mask
from .ascent import ascend
from .space import Space

_CLOUD: Final = 9
"""2 to this power points are scored."""
_STARTS: Final = 5


def given(space: Space, values: Params) -> Mask:
    """Say which axes of a space have a value in `values`."""
    return np.array([axis.key in values for axis in space.axes], dtype=bool)


def complete(
    space: Space, acquisition: Acquisition, values: Params, is_new: Callable[[Array], bool], seed: int
) -> Array | None:
    """Return the new row with `values` at which `acquisition` is best; None when only known rows were found.

    A cloud of rows is scored, and the best of them are improved in what is continuous and open.
    """
    rows = space.from_unit(sobol_points(space.dimensions, seed, _CLOUD))
    fixed = given(space, values)
    for place in np.flatnonzero(fixed):
        rows[:, place] = space.axes[place].coordinate(values[space.axes[place].key])
    scores = acquisition.values(rows)
    starts = rows[np.argsort(-scores, kind="stable")[:_STARTS]]
    reached, there = ascend(acquisition, starts, space.is_continuous & ~fixed & space.active(starts))
    rows, scores = np.concatenate([reached, rows]), np.concatenate([there, scores])
    return next((rows[place] for place in np.argsort(-scores, kind="stable") if is_new(rows[place])), None)
