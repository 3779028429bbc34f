"""Maximising a smooth function from several starts at once, inside the unit box.

A quasi-Newton method (BFGS) with projection on the box, vectorised over the starts: one call evaluates the function at
all of them, because for matrices this small the calls take most of the time. Each start has its own step size and its
own end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...arrays import Array, Mask

Function = Callable[[Array], tuple[Array, Array]]

_FIRST_STEP = 0.1
_SHRINK = 0.25
_ARMIJO_SLOPE = 1e-4
_IDLE_GAIN = 1e-4
"""A step is idle when it gains less than this (the function is a logarithm) or is shorter than a tenth of it."""


def ascend(function: Function, starts: Array, free: Mask, evaluations: int = 40) -> tuple[Array, Array]:
    """Return the rows reached from `starts` and the values there, moving only `free` coordinates within [0, 1].

    `function` maps rows to their values and gradients. No value is lower than that of its start.
    """
    rows = starts.copy()
    values, gradients = function(rows)
    gradients = np.where(free, gradients, 0.0)
    curvature = _first_curvature(gradients)
    steps = np.ones(len(rows))
    # Where the box cuts a step short, the curvature learned so far may mislead: it is reset once before a start
    # counts as done.
    fresh = np.ones(len(rows), dtype=bool)
    going = np.flatnonzero(np.isfinite(values) & free.any(axis=1))
    for _ in range(evaluations):
        if not len(going):
            break
        direction = _direction(rows[going], gradients[going], curvature[going])
        reached = np.where(free[going], np.clip(rows[going] + steps[going, None] * direction, 0.0, 1.0), rows[going])
        moved = reached - rows[going]
        new_values, new_gradients = function(reached)
        new_gradients = np.where(free[going], new_gradients, 0.0)
        promised = np.einsum("ij,ij->i", gradients[going], moved)
        better = new_values >= values[going] + _ARMIJO_SLOPE * promised
        better &= np.isfinite(new_gradients).all(axis=1) & (new_values > values[going])
        gained = new_values - values[going]
        accepted = going[better]
        curvature[accepted] = _updated(curvature[accepted], moved[better], gradients[accepted] - new_gradients[better])
        rows[accepted], values[accepted] = reached[better], new_values[better]
        gradients[accepted] = new_gradients[better]
        steps[going] = np.where(better, 1.0, steps[going] * _SHRINK)
        idle = (np.abs(moved).max(axis=1) < _IDLE_GAIN / 10) | (better & (gained < _IDLE_GAIN))
        done = idle & fresh[going]
        fresh[accepted] = False
        again = going[idle & ~done]
        curvature[again], steps[again], fresh[again] = _first_curvature(gradients[again]), 1.0, True
        going = going[~done]
    return rows, values


def _first_curvature(gradients: Array) -> Array:
    """Return inverse Hessians that make the first step of a fixed length."""
    length = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))
    return np.asarray(np.eye(gradients.shape[1]) * (_FIRST_STEP / np.maximum(length, 1e-12))[:, None, None])


def _direction(rows: Array, gradients: Array, curvature: Array) -> Array:
    """Return quasi-Newton directions that do not push against the box."""
    blocked = ((rows <= 0.0) & (gradients < 0)) | ((rows >= 1.0) & (gradients > 0))
    inside = np.where(blocked, 0.0, gradients)
    direction = np.where(blocked, 0.0, np.einsum("ijk,ik->ij", curvature, inside))
    uphill = np.einsum("ij,ij->i", direction, inside) > 0
    length = np.maximum(np.sqrt(np.einsum("ij,ij->i", inside, inside)), 1e-12)
    return np.where(uphill[:, None], direction, _FIRST_STEP * inside / length[:, None])


def _updated(curvature: Array, moved: Array, fall: Array) -> Array:
    """Return the inverse Hessians (of the negated function) after a step `moved`; the gradient fell by `fall`."""
    bend = np.einsum("ij,ij->i", moved, fall)
    usable = bend > 1e-12
    rho = np.where(usable, 1.0 / np.where(usable, bend, 1.0), 0.0)
    identity = np.eye(moved.shape[1])
    left = identity - rho[:, None, None] * np.einsum("ij,ik->ijk", moved, fall)
    outer = rho[:, None, None] * np.einsum("ij,ik->ijk", moved, moved)
    return np.asarray(left @ curvature @ left.transpose(0, 2, 1) + outer)
