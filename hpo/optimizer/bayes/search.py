"""Search for the configuration at which the acquisition function is best, in a mixed conditional space.

Small finite spaces are enumerated. In others, Sobol points and perturbations of the best configurations so far are
scored. From the best of them, gradient ascent in the continuous parameters alternates with the best single change of a
discrete one. The best configuration that is new is returned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ...arrays import Array
from ..sobol import sobol_points
from .acquisition import Acquisition
from .ascent import ascend
from .space import Space

RELAX_FROM_VALUES: Final = 12
"""Discrete numbers with at least this many values are searched as continuous, then rounded."""
ASCENT_STARTS: Final = 5
_IMPROVEMENT_ROUNDS: Final = 3
CLOUD_EXPONENT: Final = 9
"""2 to this power Sobol points are scored."""
_PERTURBATIONS: Final = 192
_PERTURBATION_SPREADS: Final = (0.01, 0.04, 0.12, 0.3)
_MIN_DISTANCE_OF_STARTS: Final = 0.05

Price = Callable[[Array], Array]
"""Maps rows to the logarithms of their costs."""


def free(rows: Array) -> Array:
    """Return a log cost of 0 for every row: all configurations cost the same."""
    return np.zeros(len(rows))


def search(
    space: Space,
    acquisition: Acquisition,
    centres: Array,
    is_new: Callable[[Array], bool],
    seed: Sequence[int],
    *,
    price: Price = free,
) -> Array | None:
    """Return the new row at which `acquisition` is best among those found; None if only known rows were found.

    `centres` are rows to look around, the best first. With a `price`, the same candidates are compared by acquisition
    minus log cost.
    """
    rng = np.random.default_rng(seed)
    cloud = space.from_unit(sobol_points(space.dimensions, int(rng.integers(2**31)), CLOUD_EXPONENT))
    rows = np.concatenate([space.with_allowed(cloud), around(space, centres, rng)])
    values = acquisition.values(rows) - price(rows)
    starts = distinct(rows, values)
    starts, values_there = _improve(space, acquisition, starts)
    rows, values = np.concatenate([starts, rows]), np.concatenate([values_there - price(starts), values])
    return best_new(rows, values, is_new)


def best_new(rows: Array, values: Array, is_new: Callable[[Array], bool]) -> Array | None:
    """Return the new row of the highest value, the first of equals; None if no row is new."""
    return next((rows[place] for place in np.argsort(-values, kind="stable") if is_new(rows[place])), None)


def best_of(acquisition: Acquisition, rows: Array, *, price: Price = free) -> Array:
    """Return the best of rows."""
    return np.asarray(rows[int(np.argmax(acquisition.values(rows) - price(rows)))])


def every_row(space: Space) -> Array:
    """Return one row for every configuration of a finite space that keeps the rules."""
    rows = np.array(list(itertools.product(*(axis.coordinates for axis in space.axes))), dtype=float)
    shown = np.where(space.active(rows), rows, -1.0)
    _, first = np.unique(shown, axis=0, return_index=True)
    different = rows[np.sort(first)]
    return np.asarray(different[space.allows(different)])


# ---------------------------------------------------------------- candidates


def around(space: Space, centres: Array, rng: np.random.Generator) -> Array:
    """Return perturbations of the centres, each of a few coordinates, by small and larger amounts."""
    picked = centres[np.arange(_PERTURBATIONS) % len(centres)]
    d = space.dimensions
    changed = rng.random((_PERTURBATIONS, d)) < max(1.5 / d, 0.3)
    changed[np.arange(_PERTURBATIONS), rng.integers(d, size=_PERTURBATIONS)] = True
    spread = rng.choice(_PERTURBATION_SPREADS, size=(_PERTURBATIONS, 1))
    moved = np.clip(picked + spread * rng.standard_normal((_PERTURBATIONS, d)), 0.0, 1.0)
    drawn = space.from_unit(rng.random((_PERTURBATIONS, d)))
    moved = np.where(space.is_categorical, drawn, moved)
    return space.snap(np.where(changed, moved, picked))


def distinct(rows: Array, values: Array) -> Array:
    """Return the best rows that lie apart from each other."""
    chosen: list[int] = []
    for place in np.argsort(-values, kind="stable"):
        if len(chosen) == ASCENT_STARTS:
            break
        if not chosen or np.abs(rows[chosen] - rows[place]).max(axis=1).min() > _MIN_DISTANCE_OF_STARTS:
            chosen.append(int(place))
    return np.asarray(rows[chosen])


# ---------------------------------------------------------------- improvement


def _improve(space: Space, acquisition: Acquisition, rows: Array) -> tuple[Array, Array]:
    values = acquisition.values(rows)
    for _ in range(_IMPROVEMENT_ROUNDS):
        before = values
        rows, values = _climb(space, acquisition, rows, values)
        if space.is_continuous.all():
            break
        rows, values = _step(space, acquisition, rows, values)
        if (values - before).max() < 1e-3:
            break
    return rows, values


def _climb(space: Space, acquisition: Acquisition, rows: Array, values: Array) -> tuple[Array, Array]:
    """Return the rows and values that gradient ascent reaches.

    It first treats discrete numbers with many values as continuous, and then starts again from the nearest values.
    """
    active = space.active(rows)
    is_relaxed = np.array([not axis.is_categorical and axis.count >= RELAX_FROM_VALUES for axis in space.axes])
    reached = rows
    if is_relaxed.any():
        reached = space.snap(ascend(acquisition, reached, (space.is_continuous | is_relaxed) & active)[0])
    reached, there = ascend(acquisition, reached, space.is_continuous & active)
    better = there > values
    return np.where(better[:, None], reached, rows), np.where(better, there, values)


def _step(space: Space, acquisition: Acquisition, rows: Array, values: Array) -> tuple[Array, Array]:
    """Return the rows and values after the best single change of a discrete value, in each row where one helps."""
    changes = [(place, changed) for place, row in enumerate(rows) for changed in _changes(space, row)]
    if not changes:
        return rows, values
    owners = np.array([place for place, _ in changes])
    candidates = np.stack([changed for _, changed in changes])
    found = acquisition.values(candidates)
    rows, values = rows.copy(), values.copy()
    for place in range(len(rows)):
        mine = np.flatnonzero(owners == place)
        if len(mine) and found[best := mine[int(np.argmax(found[mine]))]] > values[place]:
            rows[place], values[place] = candidates[best], found[best]
    return rows, values


def _changes(space: Space, row: Array) -> list[Array]:
    active = space.active(row[None])[0]
    found = []
    for place, axis in enumerate(space.axes):
        if active[place] and not axis.is_continuous:
            for coordinate in axis.neighbours(float(row[place])):
                changed = row.copy()
                changed[place] = coordinate
                found.append(changed)
    return found
