"""Where in a space trials fail: an average over regions, weighted by how well each explains what failed and what ran.

A hypothesis says that trials fail at one rate inside a region and at another outside. The regions are those that real
failures have: a side of a number (`lr` above a threshold) or a band of it, one category or all but one, and two sides
or categories together, as "both" (many frames and a large batch) or as "either". Further hypotheses have no region: a
low rate everywhere, or a high one (the code is broken). Rates have Beta priors, so the evidence of a hypothesis has a
closed form and the average over all of them is exact (after Tenenbaum, 1999, "Bayesian Modeling of Human Concept
Learning", with rates in place of certainty). The regions that hold one failure and nothing that ran are a small share
of all regions, so failures here and there count as a rate and not as a region.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from scipy.special import betaln, logsumexp

from ...arrays import Array, Indices, Mask
from ...spec import IntParameter
from .space import Axis, Space

_CELLS: Final = 32
"""A number with more values is divided into this many cells; thresholds lie between cells."""
_INSIDE: Final = (3.0, 0.5)
"""Beta prior of the rate of failures inside a region, and everywhere when everything fails."""
OUTSIDE: Final = (0.5, 9.5)
"""Beta prior of the rate of failures outside of regions: 0.05 is expected."""
_NO_REGION, _ALL_FAIL, _ONE_PARAMETER, _TWO_PARAMETERS = 0.5, 0.05, 0.3, 0.15
"""Prior probabilities of the kinds of hypotheses; parameters, or pairs of them, have equal shares."""
_SIMPLE_SHARE: Final = 0.7
"""The share of sides and single categories among the regions of one parameter; the rest are bands or all but one."""
_KINDS_OF_PAIRS: Final = 3
"""Both, either, and a sum of two numbers."""
_SLOPES: Final = (0.5, 1.0, 2.0)
_THRESHOLDS: Final = 31
"""Weights of the second number in sums of two, and the number of thresholds of each sum."""
_NEGLIGIBLE: Final = 1e-3
"""Tables that nowhere add more than this to the rate are left out."""


class Grid:
    """The cells of a space: those of each axis, and one more for where the axis is inactive."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._is_fine = np.array([_is_fine(axis) for axis in space.axes], dtype=bool)
        fine = zip(space.axes, self._is_fine, strict=True)
        self.counts = np.array([_CELLS if is_fine else axis.count for axis, is_fine in fine])
        axes = list(zip(space.axes, self.counts.tolist(), strict=True))
        # No region holds the configurations in which its parameter is inactive.
        self.sides = [np.pad(_sides(axis, count), ((0, 0), (0, 1))) for axis, count in axes]
        """By axis: which cells belong to each side of a number, or to each category: (sides, cells + 1)."""
        self.bands = [np.pad(_bands(axis, count), ((0, 0), (0, 1))) for axis, count in axes]
        """By axis: which cells belong to each band of a number, or to all categories but one: (bands, cells + 1)."""

    def slanted(self, first: int, second: int) -> Array:
        """Return the cells where a weighted sum or difference of two numbers is large: (sums, cells + 1, cells + 1)."""
        if self._space.is_categorical[[first, second]].any():
            return np.empty((0, 0, 0))
        return _slanted(int(self.counts[first]), int(self.counts[second]))

    def cells(self, rows: Array) -> Indices:
        """Return the cell of each coordinate of rows (n, dimensions): (n, dimensions)."""
        first, second, share = self.neighbours(rows)
        return np.where(share < 0.5, first, second)

    def neighbours(self, rows: Array) -> tuple[Indices, Indices, Array]:
        """Return the two cells whose middles are nearest, and how far the coordinate is from the first to the second.

        Discrete values lie in the middle of their cells.
        """
        last = self.counts - 1.0
        discrete = np.column_stack([axis.place(rows[:, place]) for place, axis in enumerate(self._space.axes)])
        position = np.clip(np.where(self._is_fine, rows * self.counts - 0.5, discrete), 0.0, last)
        active = self._space.active(rows)
        first = np.where(active, np.floor(position), self.counts)
        second = np.where(active, np.minimum(first + 1, last), self.counts)
        share = np.where(active & self._is_fine, position - first, 0.0)
        return first.astype(np.intp), second.astype(np.intp), share

    def slopes(self, rows: Array) -> Array:
        """Return the derivative of `share` by each coordinate: 0 for discrete and inactive ones."""
        position = rows * self.counts - 0.5
        moves = self._is_fine & self._space.active(rows) & (position > 0) & (position < self.counts - 1)
        return np.where(moves, self.counts, 0.0)


def _is_fine(axis: Axis) -> bool:
    if axis.is_categorical:
        return False
    is_logarithmic = isinstance(axis.parameter, IntParameter) and axis.parameter.log
    return axis.is_continuous or is_logarithmic or axis.count > _CELLS


def _sides(axis: Axis, count: int) -> Array:
    if axis.is_categorical:
        return np.eye(count)
    above = np.tri(count, count - 1, -1).T
    return np.concatenate([above, 1.0 - above])


def _bands(axis: Axis, count: int) -> Array:
    if axis.is_categorical:
        return 1.0 - np.eye(count) if count > 2 else np.empty((0, count))
    first, last = np.triu_indices(max(count - 2, 0))
    cells = np.arange(count)
    return ((cells > first[:, None]) & (cells <= last[:, None] + 1)).astype(np.float64)


@cache
def _slanted(first: int, second: int) -> Array:
    found = []
    x, y = ((np.arange(count) + 0.5) / count for count in (first, second))
    for slope, x_sign, y_sign in itertools.product(_SLOPES, (-1.0, 1.0), (-1.0, 1.0)):
        total = x_sign * x[:, None] + slope * y_sign * y[None, :]
        for threshold in np.linspace(total.min(), total.max(), _THRESHOLDS + 2)[1:-1]:
            found.append(np.pad((total > threshold).astype(np.float64), ((0, 1), (0, 1))))
    return np.array(found)


# ---------------------------------------------------------------- evidence


class _Evidence:
    """Log evidence and expected rates of a hypothesis, by how many trials in its region failed and how many ran."""

    def __init__(self, failed: int, ran: int) -> None:
        f, s = np.arange(failed + 1)[:, None], np.arange(ran + 1)[None, :]
        inside = betaln(_INSIDE[0] + f, _INSIDE[1] + s) - betaln(*_INSIDE)
        outside = betaln(OUTSIDE[0] + f, OUTSIDE[1] + s) - betaln(*OUTSIDE)
        self.logs = inside + outside[::-1, ::-1]
        self.inside = (_INSIDE[0] + f) / (sum(_INSIDE) + f + s)
        self.outside = ((OUTSIDE[0] + f) / (sum(OUTSIDE) + f + s))[::-1, ::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Regions:
    """Regions of one kind on the same axes, by their counts of trials that failed and that ran."""

    axes: tuple[int, ...]
    members: tuple[Array, ...]
    """By axis: the cells of each side (sides, cells + 1)."""
    is_either: bool
    log_prior: float
    """Of each of the regions."""
    failed: Indices
    ran: Indices

    def table(self, weights: Array) -> Array:
        """Return the sum of the weights of the regions that hold a cell, for each cell of the axes."""
        if len(self.members) == 1:
            return np.tensordot(weights, self.members[0], axes=1)
        first, second = self.members
        if self.is_either:
            return np.asarray(weights.sum() - (1.0 - first).T @ weights @ (1.0 - second))
        return np.asarray(first.T @ weights @ second)


def _regions(grid: Grid, cells: Indices, failed: Mask) -> Iterator[_Regions]:
    dimensions = cells.shape[1]
    for axis in range(dimensions):
        seen = _counts(grid, cells, failed, axis)
        for sides, share in ((grid.sides[axis], _SIMPLE_SHARE), (grid.bands[axis], 1.0 - _SIMPLE_SHARE)):
            if len(sides):
                prior = _ONE_PARAMETER * share / dimensions
                yield _family((axis,), (sides,), prior, [sides @ count for count in seen])
    pairs = list(itertools.combinations(range(dimensions), 2))
    for axes in pairs:
        seen = _counts(grid, cells, failed, *axes)
        first, second = (grid.sides[axis] for axis in axes)
        prior = _TWO_PARAMETERS / len(pairs) / _KINDS_OF_PAIRS
        both = [first @ count @ second.T for count in seen]
        yield _family(axes, (first, second), prior, both)
        outside = [(1.0 - first) @ count @ (1.0 - second).T for count in seen]
        either = [count.sum() - rest for count, rest in zip(seen, outside, strict=True)]
        yield _family(axes, (first, second), prior, either, is_either=True)
        slanted = grid.slanted(*axes)
        if len(slanted):
            yield _family(axes, (slanted,), prior, [np.tensordot(slanted, count) for count in seen])


def _counts(grid: Grid, cells: Indices, failed: Mask, *axes: int) -> list[Array]:
    """Return the number of trials that failed, and of those that ran, in each cell of the axes."""
    shape = tuple(int(grid.counts[axis]) + 1 for axis in axes)
    place = np.ravel_multi_index(tuple(cells[:, axis] for axis in axes), shape)
    size = int(np.prod(shape))
    counts = (np.bincount(place[kept], minlength=size) for kept in (failed, ~failed))
    return [count.reshape(shape).astype(np.float64) for count in counts]


def _family(
    axes: tuple[int, ...], members: tuple[Array, ...], prior: float, seen: Sequence[Array], *, is_either: bool = False
) -> _Regions:
    """Return regions that share the prior probability, with the trials `seen` in them: failed, and run."""
    failed, ran = (np.rint(count).astype(np.intp) for count in seen)
    log_prior = float(np.log(prior / failed.size))
    return _Regions(axes=axes, members=members, is_either=is_either, log_prior=log_prior, failed=failed, ran=ran)


# ---------------------------------------------------------------- the average


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The expected rate of failures over the cells of a space: a base and what tables of one or two axes add to it."""

    log_evidence: float
    base: float
    """The rate outside of all regions."""
    tables: dict[tuple[int, ...], Array]
    """By axes: what their cells add (cells + 1 along each axis)."""


def rates(grid: Grid, cells: Indices, failed: Mask) -> Rates:
    """Return the expected rates after trials in `cells` (trials, axes) of which those in `failed` failed."""
    counts = int(failed.sum()), int((~failed).sum())
    known = _Evidence(*counts)
    regions = list(_regions(grid, cells, failed))
    nowhere = np.log(_NO_REGION) + known.logs[0, 0]
    everywhere = np.log(_ALL_FAIL) + known.logs[counts]
    logs = [region.log_prior + known.logs[region.failed, region.ran] for region in regions]
    evidence = float(logsumexp(np.concatenate([[nowhere, everywhere], *(found.ravel() for found in logs)])))
    base = np.exp(nowhere - evidence) * known.outside[0, 0] + np.exp(everywhere - evidence) * known.inside[counts]
    tables: dict[tuple[int, ...], Array] = {}
    for region, found in zip(regions, logs, strict=True):
        weights, place = np.exp(found - evidence), (region.failed, region.ran)
        base += float((weights * known.outside[place]).sum())
        added = region.table(weights * (known.inside[place] - known.outside[place]))
        tables[region.axes] = tables[region.axes] + added if region.axes in tables else added
    return Rates(
        log_evidence=evidence,
        base=float(base),
        tables={axes: table for axes, table in tables.items() if np.abs(table).max() > _NEGLIGIBLE},
    )


def mixed(parts: list[tuple[float, Rates]]) -> Rates:
    """Return the average of rates by their weights, which add up to 1."""
    tables: dict[tuple[int, ...], Array] = {}
    for weight, part in parts:
        for axes, table in part.tables.items():
            tables[axes] = tables.get(axes, np.zeros_like(table)) + weight * table
    return Rates(
        log_evidence=float(logsumexp([part.log_evidence for _, part in parts])),
        base=sum(weight * part.base for weight, part in parts),
        tables=tables,
    )
