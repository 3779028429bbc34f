"""Noisy expected (hypervolume) improvement under constraints, with pending trials.

The incumbents are not the noisy best values but samples of the function at the base: the best configurations so far
and all pending ones. In each sample the improvement of a new point is known in closed form, given the sample; so the
average over few samples is smooth, and a pending trial repels by what it will probably show (Letham et al., 2019,
"Constrained Bayesian Optimization with Noisy Experiments"; for hypervolume Daulton et al., 2021, "Parallel Bayesian
Optimization of Multiple Noisy Objectives"). Everything is in logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Array
from .gp import Conditioned, Process
from .improvement import cells, is_dominated, log_gain, log_probability
from .space import Space

_MARGIN = 0.1
"""The reference point lies this share of the front's range below the worst of the front."""
_AT_ONCE = 2**23
"""Rows x samples x cells that are evaluated at once: with several objectives all rows could take gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelled:
    """A process of one metric, in targets (more is better), and what is wanted of it."""

    process: Process
    is_objective: bool
    threshold: float
    """What a feasible outcome reaches; minus infinity without a constraint."""


class Acquisition:
    """The logarithm of what one more trial is expected to improve."""

    def __init__(self, space: Space, models: Sequence[Modelled], base: Array, normals: Array) -> None:
        """Sample the models at the rows `base` with `normals` (models, members, samples, base)."""
        self._space = space
        self._objectives = [model for model in models if model.is_objective]
        self._constraints = [model for model in models if not model.is_objective]
        embedded = space.embed(base)
        ordered = self._objectives + self._constraints
        self._given = [Conditioned(model.process, embedded, normals[place]) for place, model in enumerate(ordered)]
        self._lower, self._upper = self._incumbents()

    def values(self, rows: Array) -> Array:
        """Return the log improvement expected at rows."""
        return self._in_parts(rows, with_gradient=False)[0]

    def __call__(self, rows: Array) -> tuple[Array, Array]:
        """Return the log improvement expected at rows, and its gradient in their coordinates."""
        return self._in_parts(rows, with_gradient=True)

    def _in_parts(self, rows: Array, *, with_gradient: bool) -> tuple[Array, Array]:
        most = max(_AT_ONCE // math.prod(self._lower.shape[:3]), 1)
        parts = [rows[start : start + most] for start in range(0, max(len(rows), 1), most)]
        found = [self._evaluate(part, with_gradient=with_gradient) for part in parts]
        return np.concatenate([value for value, _ in found]), np.concatenate([gradient for _, gradient in found])

    def _evaluate(self, rows: Array, *, with_gradient: bool) -> tuple[Array, Array]:
        embedded = self._space.embed(rows)
        predictions = [given.predict(embedded) for given in self._given]
        total, parts = np.zeros((*self._lower.shape[:3], len(rows))), []
        for place, prediction in enumerate(predictions):
            means, sds = prediction.means[:, :, None, :], np.sqrt(prediction.variances)[:, None, None, :]
            if place < len(self._objectives):
                lower, upper = self._lower[..., place, None], self._upper[..., place, None]
                part = log_gain(means, sds, lower, upper)
            else:
                part = log_probability(means, sds, self._constraints[place - len(self._objectives)].threshold)
            total += part[0]
            parts.append(part)
        peak = total.max(axis=(0, 1, 2))
        shares = np.exp(total - peak)
        amount = shares.sum(axis=(0, 1, 2))
        value = peak + np.log(amount / math.prod(total.shape[:2]))
        if not with_gradient:
            return value, np.empty(0)
        shares /= amount
        gradient = np.zeros_like(embedded)
        for prediction, (_, by_mean, by_sd) in zip(predictions, parts, strict=True):
            by_means = (shares * by_mean).sum(axis=2)
            by_variances = (shares * by_sd).sum(axis=(1, 2)) / (2 * np.sqrt(prediction.variances))
            gradient += prediction.pull_back(by_means, by_variances)
        return value, self._space.pull_back(rows, gradient)

    def _incumbents(self) -> tuple[Array, Array]:
        """Return the corners (members, samples, cells, objectives) of what is not dominated in each sample."""
        count = len(self._objectives)
        values = np.stack([given.samples for given in self._given[:count]], axis=-1)
        # More of the only objective is an improvement on either side of what is required of it.
        bounds = [model.threshold if count > 1 else -math.inf for model in self._objectives]
        limits = [*bounds, *(model.threshold for model in self._constraints)]
        feasible = np.ones(values.shape[:3], dtype=bool)
        for given, limit in zip(self._given, limits, strict=True):
            feasible &= given.samples >= limit
        reference = np.maximum(_reference(values.mean(axis=(0, 1)), feasible.mean(axis=(0, 1)) > 0.5), bounds)
        draws = zip(values.reshape(-1, *values.shape[2:]), feasible.reshape(-1, values.shape[2]), strict=True)
        found = [cells(_front(sample[kept]), reference) for sample, kept in draws]
        most = max(len(lower) for lower, _ in found)
        # Cells of no width above everything stand in where a sample has fewer.
        lower = np.full((len(found), most, count), 1e6)
        upper = np.full((len(found), most, count), np.inf)
        for place, (low, high) in enumerate(found):
            lower[place, : len(low)], upper[place, : len(high)] = low, high
        shape = (*values.shape[:2], most, count)
        return lower.reshape(shape), upper.reshape(shape)


def _front(values: Array) -> Array:
    return values[~is_dominated(values)] if values.shape[1] > 1 and len(values) > 1 else values


def _reference(values: Array, feasible: Array) -> Array:
    """Return the point that counts as nothing gained.

    With one objective any feasible point beats having none; with several it lies just below the worst of the front.
    """
    if values.shape[1] == 1 or not feasible.any():
        return np.asarray(values.min(axis=0) - 1.0)
    front = _front(values[feasible])
    if len(front) == 1:
        return np.asarray(values.min(axis=0) - _MARGIN)
    span = front.max(axis=0) - front.min(axis=0)
    return np.asarray(front.min(axis=0) - _MARGIN * np.where(span > 0, span, 1.0))
