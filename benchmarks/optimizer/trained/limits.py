"""What can be found in a table at best: the regret of choices among configurations that were trained once.

A search sees the validation of one training of each configuration that it tries. The truth is that of other clips and
of all trainings, so that even who tries the whole table does not choose its best. The regret of a rule in draws of
random configurations says how much of a method's regret is that of the choice, whatever was proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hpo.arrays import Array
from hpo.stopping.ends import predicted_ends

from ..problems.trained import TrainedTable

SIZES: Final = (12, 20, 40)
RULES: Final = ("last value", "believed end", "last values of all trainings", "truth")
HEADINGS: Final = "| table | configurations | draws | " + " | ".join(RULES) + " |\n" + "| --- " * (3 + len(RULES)) + "|"


def limits(table: TrainedTable, *, draws: int, seed: int = 0) -> list[str]:
    """Return a row below `HEADINGS` for each of `SIZES`, and one for the whole table.

    Each cell has the mean regret of what a rule chooses, and its standard error over the draws. Regret is 0 for the
    best configuration of the table and 1 for its median.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for size in (*(size for size in SIZES if size < table.configurations), table.configurations):
        found = np.array([_regrets(table, size, rng) for _ in range(draws)])
        errors = found.std(axis=0, ddof=1) / np.sqrt(draws) if draws > 1 else np.full(len(RULES), np.nan)
        cells = [f"{mean:.2f} ± {error:.2f}" for mean, error in zip(found.mean(axis=0), errors, strict=True)]
        rows.append(f"| {table.name} | {size} | {draws} | {' | '.join(cells)} |")
    return rows


def _regrets(table: TrainedTable, size: int, rng: np.random.Generator) -> list[float]:
    """Return the regret of what each of `RULES` chooses among random configurations, of each a random training."""
    places = rng.choice(table.configurations, size, replace=False)
    curves = [_curve(table, place, int(rng.integers(len(table.each[place])))) for place in places]
    truths = table.truths[places]
    scores = (
        np.array([curve[-1] for curve in curves]),
        _believed_ends(curves, table.epochs),
        np.array([_last_of_all(table, place) for place in places]),
        truths,
    )
    chosen = [int(rng.choice(np.flatnonzero(score == score.max()))) for score in scores]
    return [float((table.optimum - truths[place]) / (table.optimum - table.median)) for place in chosen]


def _curve(table: TrainedTable, place: int, training: int) -> Array:
    """Return the validation top-1 of a training; one that failed counts as guessing in all epochs."""
    found = table.each[place][training]
    return np.full(table.epochs, table.chance) if found.failed else found.top1


def _last_of_all(table: TrainedTable, place: int) -> float:
    return float(np.mean([_curve(table, place, training)[-1] for training in range(len(table.each[place]))]))


def _believed_ends(curves: Sequence[Array], epochs: int) -> Array:
    by_epoch = [{epoch: float(value) for epoch, value in enumerate(curve, start=1)} for curve in curves]
    found = predicted_ends(by_epoch, [True] * len(curves), epochs, improves=True, on_these_clips=True).by_place
    return np.array([found[place].mean for place in range(len(curves))])
