"""Rows that a search for the best acquisition compares: those of a finite space, and those to start from in others."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import numpy as np

from ...arrays import Array
from ..bayes.space import Space

_PERTURBATIONS: Final = 192
_PERTURBATION_SPREADS: Final = (0.01, 0.04, 0.12, 0.3)
_MIN_DISTANCE_OF_STARTS: Final = 0.05


def every_row(space: Space) -> Array:
    """Return one row for every configuration of a finite space that keeps the rules."""
    rows = np.array(list(itertools.product(*(axis.coordinates for axis in space.axes))), dtype=float)
    shown = np.where(space.active(rows), rows, -1.0)
    _, first = np.unique(shown, axis=0, return_index=True)
    different = rows[np.sort(first)]
    return np.asarray(different[space.allows(different)])


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


def distinct(rows: Array, values: Array, most: int) -> Array:
    """Return the rows of the highest values that lie apart from each other, at most this number."""
    chosen: list[int] = []
    for place in np.argsort(-values, kind="stable"):
        if len(chosen) == most:
            break
        if not chosen or np.abs(rows[chosen] - rows[place]).max(axis=1).min() > _MIN_DISTANCE_OF_STARTS:
            chosen.append(int(place))
    return np.asarray(rows[chosen])


def best_new(rows: Array, values: Array, is_new: Callable[[Array], bool]) -> Array | None:
    """Return the new row of the highest value, the first of equals; None if no row is new."""
    return next((rows[place] for place in np.argsort(-values, kind="stable") if is_new(rows[place])), None)
