"""The average over regions, against one that lists every region as a set of configurations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from hpo.optimizer.bayes.regions import rates
from hpo.optimizer.bayes.space import Space

from ...records import spec_with

FRAMES, SIZES, MODELS = (8, 16, 32), (96, 112), ("slowfast_r50_4x16", "r2plus1d_18", "x3d_m")
SPACE = {
    "clip.frames": {"type": "ordinal", "choices": list(FRAMES)},
    "clip.size": {"type": "ordinal", "choices": list(SIZES)},
    "model": {"type": "categorical", "choices": list(MODELS)},
}
Cell = tuple[int, int, int]
CELLS: list[Cell] = list(itertools.product(range(3), range(2), range(3)))
SHAPE = (3, 2, 3)


def _evidence(failed: int, ran: int, a: float, b: float) -> float:
    """Return the probability of these trials in a given order, with a rate of failures that is Beta(a, b)."""
    logs = math.lgamma(a + failed) + math.lgamma(b + ran) - math.lgamma(a + b + failed + ran)
    return math.exp(logs - math.lgamma(a) - math.lgamma(b) + math.lgamma(a + b))


def _sides(axis: int) -> list[set[Cell]]:
    if axis == 2:
        return [{cell for cell in CELLS if cell[2] == place} for place in range(3)]
    thresholds = range(1, SHAPE[axis])
    above = [{cell for cell in CELLS if cell[axis] >= threshold} for threshold in thresholds]
    return above + [set(CELLS) - side for side in above]


def _regions() -> Iterator[tuple[float, list[set[Cell]]]]:
    """Yield families of regions with their prior probabilities; the regions of a family share it evenly."""
    yield 0.5, [set()]
    yield 0.05, [set(CELLS)]
    bands = {0: [{cell for cell in CELLS if cell[0] == 1}], 1: [], 2: [set(CELLS) - side for side in _sides(2)]}
    for axis in range(3):
        yield 0.3 / 3 * 0.7, _sides(axis)
        if bands[axis]:
            yield 0.3 / 3 * 0.3, bands[axis]
    for first, second in itertools.combinations(range(3), 2):
        pairs = list(itertools.product(_sides(first), _sides(second)))
        yield 0.15 / 9, [a & b for a, b in pairs]
        yield 0.15 / 9, [a | b for a, b in pairs]
    x, y = [(place + 0.5) / 3 for place in range(3)], [0.25, 0.75]
    slanted = []
    for slope, u, v in itertools.product((0.5, 1.0, 2.0), (-1, 1), (-1, 1)):
        sums = {cell: u * x[cell[0]] + slope * v * y[cell[1]] for cell in CELLS}
        low, high = min(sums.values()), max(sums.values())
        for threshold in np.linspace(low, high, 33)[1:-1]:
            slanted.append({cell for cell in CELLS if sums[cell] > threshold})
    yield 0.15 / 9, slanted


def _expected(failed: list[Cell], ran: list[Cell]) -> dict[Cell, float]:
    total, found = 0.0, dict.fromkeys(CELLS, 0.0)
    for prior, regions in _regions():
        for region in regions:
            f, s = sum(cell in region for cell in failed), sum(cell in region for cell in ran)
            f_out, s_out = len(failed) - f, len(ran) - s
            weight = prior / len(regions) * _evidence(f, s, 3.0, 0.5) * _evidence(f_out, s_out, 0.5, 9.5)
            total += weight
            inside, outside = (3.0 + f) / (3.5 + f + s), (0.5 + f_out) / (10.0 + f_out + s_out)
            for cell in CELLS:
                found[cell] += weight * (inside if cell in region else outside)
    return {cell: value / total for cell, value in found.items()}


@pytest.mark.parametrize(("seed", "share"), [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.9)])
def test_the_average_is_over_every_region(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.integers(SHAPE, size=(12, 3))
    failed = (cells[:, 0] + cells[:, 1] > 1) | (rng.random(12) < share)
    rows = np.column_stack([cells[:, 0] / 2, cells[:, 1], cells[:, 2]])
    found = rates(Space(spec_with(space=SPACE)), rows, failed)
    expected = _expected(*([tuple(cell) for cell in cells[kept].tolist()] for kept in (failed, ~failed)))
    for cell in CELLS:
        value = found.base + sum(table[tuple(cell[axis] for axis in axes)] for axes, table in found.tables.items())
        # Tables that add less than a thousandth to the rate are left out.
        assert value == pytest.approx(expected[cell], abs=5e-3)
