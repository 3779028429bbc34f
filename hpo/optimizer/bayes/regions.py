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

from ...arrays import Array, Indices, Mask
from ...spec import IntParameter
from .space import Axis, Space

_CELLS: Final = {1: 128, 2: 32}
"""A number with more values is divided into this many cells, for regions of one and of two parameters."""
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
_EDGES_OF_BANDS: Final = 32
"""Bands begin and end at about this many of the thresholds of a number."""
_NEGLIGIBLE: Final = 1e-3
"""Tables that nowhere add more than this to the rate are left out."""


class Grid:
    """The cells of a space: those of each axis, and one more for where the axis is inactive.

    Thresholds lie between the cells of a number. No region holds the configurations in which its parameter is inactive.
    """

    def __init__(self, space: Space, parameters: int) -> None:
        """Divide the axes for regions of one or of two `parameters`."""
        self._space = space
        most = _CELLS[parameters]
        self._is_divided = np.array([_is_divided(axis, most) for axis in space.axes], dtype=bool)
        divided = zip(space.axes, self._is_divided, strict=True)
        self.counts = np.array([most if is_divided else axis.count for axis, is_divided in divided])

    def sides(self, axis: int) -> Array:
        """Return which cells belong to each side of a number, or to each category: (sides, cells + 1)."""
        return _sides(int(self.counts[axis]), is_categorical=bool(self._space.is_categorical[axis]))

    def bands(self, axis: int) -> Array:
        """Return which cells belong to each band of a number, or to all categories but one: (bands, cells + 1)."""
        return _bands(int(self.counts[axis]), is_categorical=bool(self._space.is_categorical[axis]))

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
        position = np.clip(np.where(self._is_divided, rows * self.counts - 0.5, discrete), 0.0, last)
        active = self._space.active(rows)
        first = np.where(active, np.floor(position), self.counts)
        second = np.where(active, np.minimum(first + 1, last), self.counts)
        share = np.where(active & self._is_divided, position - first, 0.0)
        return first.astype(np.intp), second.astype(np.intp), share

    def slopes(self, rows: Array) -> Array:
        """Return the derivative of `share` by each coordinate: 0 for discrete and inactive ones."""
        position = rows * self.counts - 0.5
        moves = self._is_divided & self._space.active(rows) & (position > 0) & (position < self.counts - 1)
        return np.where(moves, self.counts, 0.0)


def _is_divided(axis: Axis, most: int) -> bool:
    if axis.is_categorical:
        return False
    is_logarithmic = isinstance(axis.parameter, IntParameter) and axis.parameter.log
    return axis.is_continuous or is_logarithmic or axis.count > most


@cache
def _sides(count: int, *, is_categorical: bool) -> Array:
    above = np.tri(count, count - 1, -1).T
    found = np.eye(count) if is_categorical else np.concatenate([above, 1.0 - above])
    return np.pad(found, ((0, 0), (0, 1)))


@cache
def _bands(count: int, *, is_categorical: bool) -> Array:
    edges = np.arange(1, count)[:: max(count // _EDGES_OF_BANDS, 1)]
    first, last = np.triu_indices(len(edges), 1)
    cells = np.arange(count)
    found = ((cells >= edges[first, None]) & (cells < edges[last, None])).astype(np.float64)
    if is_categorical:
        found = 1.0 - np.eye(count) if count > 2 else np.empty((0, count))
    return np.pad(found, ((0, 0), (0, 1)))


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
        from scipy.special import betaln  # the API imports this module, and needs it only after a failure

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


def _of_one(grid: Grid, cells: Indices, failed: Mask) -> Iterator[_Regions]:
    dimensions = cells.shape[1]
    for axis in range(dimensions):
        seen = _counts(grid, cells, failed, axis)
        kinds = ((grid.sides(axis), _SIMPLE_SHARE), (grid.bands(axis), 1.0 - _SIMPLE_SHARE))
        for members, share in kinds:
            if len(members):
                prior = _ONE_PARAMETER * share / dimensions
                yield _family((axis,), (members,), prior, [members @ count for count in seen])


def _of_two(grid: Grid, cells: Indices, failed: Mask) -> Iterator[_Regions]:
    pairs = list(itertools.combinations(range(cells.shape[1]), 2))
    for axes in pairs:
        seen = _counts(grid, cells, failed, *axes)
        first, second = (grid.sides(axis) for axis in axes)
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
    """By axes: what their cells add (cells + 1 along each axis), of the grid for as many parameters."""


def rates(space: Space, rows: Array, failed: Mask) -> Rates:
    """Return the expected rates after trials at `rows` (trials, axes) of which those in `failed` failed."""
    from scipy.special import logsumexp  # the API imports this module, and needs it only after a failure

    counts = int(failed.sum()), int((~failed).sum())
    known = _Evidence(*counts)
    lines, squares = Grid(space, 1), Grid(space, 2)
    regions = [*_of_one(lines, lines.cells(rows), failed), *_of_two(squares, squares.cells(rows), failed)]
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
    from scipy.special import logsumexp  # the API imports this module, and needs it only after a failure

    tables: dict[tuple[int, ...], Array] = {}
    for weight, part in parts:
        for axes, table in part.tables.items():
            tables[axes] = tables.get(axes, np.zeros_like(table)) + weight * table
    return Rates(
        log_evidence=float(logsumexp([part.log_evidence for _, part in parts])),
        base=sum(weight * part.base for weight, part in parts),
        tables=tables,
    )
