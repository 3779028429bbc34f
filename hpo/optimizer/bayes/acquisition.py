"""Noisy expected (hypervolume) improvement under constraints, with pending trials.

Improvement is measured against samples of the function rather than against the best noisy observation. The samples are
drawn jointly at the base points: the best configurations so far and all pending ones. Given a sample, the expected
improvement of a new point has a closed form, so the average over a few samples is smooth, and points near a pending
trial gain little (Letham et al., 2019, "Constrained Bayesian Optimization with Noisy Experiments"; for hypervolume
Daulton et al., 2021, "Parallel Bayesian Optimization of Multiple Noisy Objectives"). All values are logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...arrays import Array
from .gp import Conditioned, Process
from .improvement import cells, is_dominated, log_gain, log_probability
from .space import Space

BROKEN = -1e30
"""Below every log improvement, and finite, so that differences of values stay numbers."""
_REFERENCE_MARGIN = 0.1
"""Distance of the reference point below the worst values of the front, as a share of the front's range."""
_MAX_VALUES_AT_ONCE = 2**23
"""Most rows x samples x cells evaluated at once: with several objectives all rows together could take gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelled:
    """A Gaussian process of one metric, in targets (more is better), and its role: objective or constraint."""

    process: Process
    is_objective: bool
    threshold: float
    """The least target of a feasible outcome; minus infinity without a constraint."""


class Acquisition:
    """The logarithm of the improvement expected of one more trial."""

    def __init__(self, space: Space, models: Sequence[Modelled], base: Array, normals: Array) -> None:
        """Sample the models at the rows `base` with standard normals (models, members, samples, base)."""
        self._space = space
        self._objectives = [model for model in models if model.is_objective]
        self._constraints = [model for model in models if not model.is_objective]
        embedded = space.embed(base)
        ordered = self._objectives + self._constraints
        self._given = [Conditioned(model.process, embedded, normals[place]) for place, model in enumerate(ordered)]
        self._lower, self._upper = self._incumbents()

    def values(self, rows: Array) -> Array:
        """Return the log expected improvement at rows (n, dimensions): (n,); `BROKEN` where a rule is broken."""
        kept = self._space.allows(rows)
        found = np.full(len(rows), BROKEN)
        if kept.any():
            found[kept] = self._in_parts(rows[kept], with_gradient=False)[0]
        return found

    def __call__(self, rows: Array) -> tuple[Array, Array]:
        """Return the log expected improvement at rows (n, dimensions), and its gradient in their coordinates.

        Where a rule is broken it is `BROKEN` without a slope, so that a search never moves there.
        """
        kept = self._space.allows(rows)
        found, gradient = np.full(len(rows), BROKEN), np.zeros(rows.shape)
        if kept.any():
            found[kept], gradient[kept] = self._in_parts(rows[kept], with_gradient=True)
        return found, gradient

    def _in_parts(self, rows: Array, *, with_gradient: bool) -> tuple[Array, Array]:
        most = max(_MAX_VALUES_AT_ONCE // math.prod(self._lower.shape[:3]), 1)
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
        """Return the corners (members, samples, cells, objectives) of the non-dominated region in each sample."""
        count = len(self._objectives)
        values = np.stack([given.samples for given in self._given[:count]], axis=-1)
        # With one objective more is better, whether or not it satisfies a constraint on the same metric.
        bounds = [model.threshold if count > 1 else -math.inf for model in self._objectives]
        limits = [*bounds, *(model.threshold for model in self._constraints)]
        feasible = np.ones(values.shape[:3], dtype=bool)
        for given, limit in zip(self._given, limits, strict=True):
            feasible &= given.samples >= limit
        reference = np.maximum(_reference(values.mean(axis=(0, 1)), feasible.mean(axis=(0, 1)) > 0.5), bounds)
        draws = zip(values.reshape(-1, *values.shape[2:]), feasible.reshape(-1, values.shape[2]), strict=True)
        found = [cells(_front(sample[kept]), reference) for sample, kept in draws]
        most = max(len(lower) for lower, _ in found)
        # Samples with fewer cells are padded with cells so high that no point gains from them.
        lower = np.full((len(found), most, count), 1e6)
        upper = np.full((len(found), most, count), np.inf)
        for place, (low, high) in enumerate(found):
            lower[place, : len(low)], upper[place, : len(high)] = low, high
        shape = (*values.shape[:2], most, count)
        return lower.reshape(shape), upper.reshape(shape)


def _front(values: Array) -> Array:
    return values[~is_dominated(values)] if values.shape[1] > 1 and len(values) > 1 else values


def _reference(values: Array, feasible: Array) -> Array:
    """Return the reference point, above which a point counts as an improvement.

    With one objective it is so low that any feasible point counts; with several it lies just below the front's worst.
    """
    if values.shape[1] == 1 or not feasible.any():
        return np.asarray(values.min(axis=0) - 1.0)
    front = _front(values[feasible])
    if len(front) == 1:
        return np.asarray(values.min(axis=0) - _REFERENCE_MARGIN)
    span = front.max(axis=0) - front.min(axis=0)
    return np.asarray(front.min(axis=0) - _REFERENCE_MARGIN * np.where(span > 0, span, 1.0))
