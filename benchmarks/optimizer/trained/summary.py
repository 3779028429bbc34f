"""The figures of a table in one line of Markdown."""

from __future__ import annotations

from typing import Final

import numpy as np

from ..problems.trained import TrainedTable

HEADINGS: Final = (
    "| table | configurations | trainings | chance | median | best | at chance | failed | epochs | CPU s a training | "
    "validation clips | clips of the truth | sd of top-1 between seeds |\n" + "| --- " * 13 + "|"
)
_NEAR_CHANCE: Final = 0.05


def summary(table: TrainedTable) -> str:
    """Return a row below `HEADINGS`.

    `at chance`: share of configurations whose truth is below chance + 0.05. The standard deviation is that of the last
    validation top-1 of two trainings of one configuration, over the better half of the configurations.
    """
    every = [training for trainings in table.each for training in trainings]
    failed = np.mean([training.failed is not None for training in every])
    seconds = np.nanmean([training.seconds for training in every]) * table.epochs
    cells = [
        table.name, table.configurations, len(every), f"{table.chance:.2f}", f"{table.median:.3f}",
        f"{table.optimum:.3f}", f"{np.mean(table.truths < table.chance + _NEAR_CHANCE):.0%}", f"{failed:.1%}",
        table.epochs, f"{seconds:.1f}", table.validation_clips, table.final_clips, _between_seeds(table),
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _between_seeds(table: TrainedTable) -> str:
    pairs = [
        [training.top1[-1] for training in trainings]
        for truth, trainings in zip(table.truths, table.each, strict=True)
        if truth >= table.median and len(trainings) > 1 and all(training.failed is None for training in trainings)
    ]
    return f"{np.sqrt(np.mean(np.var(pairs, axis=1, ddof=1))):.3f}" if pairs else "not measured"
