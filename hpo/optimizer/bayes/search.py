"""Where an acquisition function is best in a mixed conditional space.

Small finite spaces are enumerated. Elsewhere: a Sobol cloud and perturbations of the best configurations so far are
scored; from the best of them, steps of gradient ascent in what is continuous take turns with the best single change of
what is not; the best configuration that is new wins.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ..sobol import sobol_points
from .acquisition import Acquisition
from .arrays import Array
from .ascent import ascend
from .space import Space

_RELAXED: Final = 12
"""Numbers with at least so many values are searched as continuous, then rounded."""
_STARTS: Final = 5
_ROUNDS: Final = 3
_CLOUD: Final = 9
"""2 to this power points of the cloud."""
_LOCAL: Final = 192
_SPREADS: Final = (0.01, 0.04, 0.12, 0.3)
_APART: Final = 0.05


Price = Callable[[Array], Array]
"""Rows to the logarithms of their costs."""


def free(rows: Array) -> Array:
    """Cost nothing."""
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
    """Return the new row at which `acquisition` is found to be best; None when only known ones were found.

    `centres` are rows worth looking around, the best first. With a `price`, the best for what it costs is found among
    the same candidates.
    """
    rng = np.random.default_rng(seed)
    cloud = space.from_unit(sobol_points(space.dimensions, int(rng.integers(2**31)), _CLOUD))
    rows = np.concatenate([cloud, _around(space, centres, rng)])
    values = acquisition.values(rows) - price(rows)
    starts = _distinct(rows, values)
    starts, values_there = _improve(space, acquisition, starts)
    rows, values = np.concatenate([starts, rows]), np.concatenate([values_there - price(starts), values])
    return next((rows[place] for place in np.argsort(-values, kind="stable") if is_new(rows[place])), None)


def best_of(acquisition: Acquisition, rows: Array, *, price: Price = free) -> Array:
    """Return the best of rows."""
    return np.asarray(rows[int(np.argmax(acquisition.values(rows) - price(rows)))])


def every_row(space: Space) -> Array:
    """Return one row for every configuration of a finite space."""
    rows = np.array(list(itertools.product(*(axis.coordinates for axis in space.axes))), dtype=float)
    shown = np.where(space.active(rows), rows, -1.0)
    _, first = np.unique(shown, axis=0, return_index=True)
    return np.asarray(rows[np.sort(first)])


# ---------------------------------------------------------------- candidates


def _around(space: Space, centres: Array, rng: np.random.Generator) -> Array:
    """Return perturbations of the centres: a few coordinates each, by small and larger amounts."""
    picked = centres[np.arange(_LOCAL) % len(centres)]
    d = space.dimensions
    changed = rng.random((_LOCAL, d)) < max(1.5 / d, 0.3)
    changed[np.arange(_LOCAL), rng.integers(d, size=_LOCAL)] = True
    spread = rng.choice(_SPREADS, size=(_LOCAL, 1))
    moved = np.clip(picked + spread * rng.standard_normal((_LOCAL, d)), 0.0, 1.0)
    drawn = space.from_unit(rng.random((_LOCAL, d)))
    moved = np.where(space.is_categorical, drawn, moved)
    return space.snap(np.where(changed, moved, picked))


def _distinct(rows: Array, values: Array) -> Array:
    """Return the best rows that are not all in one place."""
    chosen: list[int] = []
    for place in np.argsort(-values, kind="stable"):
        if len(chosen) == _STARTS:
            break
        if not chosen or np.abs(rows[chosen] - rows[place]).max(axis=1).min() > _APART:
            chosen.append(int(place))
    return np.asarray(rows[chosen])


# ---------------------------------------------------------------- improvement


def _improve(space: Space, acquisition: Acquisition, rows: Array) -> tuple[Array, Array]:
    values = acquisition.values(rows)
    for _ in range(_ROUNDS):
        before = values
        rows, values = _climb(space, acquisition, rows, values)
        if space.is_continuous.all():
            break
        rows, values = _step(space, acquisition, rows, values)
        if (values - before).max() < 1e-3:
            break
    return rows, values


def _climb(space: Space, acquisition: Acquisition, rows: Array, values: Array) -> tuple[Array, Array]:
    """Ascend, first as if long lists of numbers were continuous, then from the nearest of them."""
    active = space.active(rows)
    is_relaxed = np.array([axis.count >= _RELAXED and not axis.is_categorical for axis in space.axes], dtype=bool)
    reached = rows
    if is_relaxed.any():
        reached = space.snap(ascend(acquisition, reached, (space.is_continuous | is_relaxed) & active)[0])
    reached, there = ascend(acquisition, reached, space.is_continuous & active)
    better = there > values
    return np.where(better[:, None], reached, rows), np.where(better, there, values)


def _step(space: Space, acquisition: Acquisition, rows: Array, values: Array) -> tuple[Array, Array]:
    """Make the best single change of a value that is not continuous, in each row where one helps."""
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
