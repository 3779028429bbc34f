"""The tables of real trainings as problems of the simulated service: every epoch as it was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from hpo.trial import FailureKind, Params

from .problem import Problem
from .trained import TABLES_FOLDER, TrainedTable
from .training import Training

PREFIX: Final = "trained_"
_DURATION_SPREAD: Final = 0.05
"""Standard deviation of the logarithm of an epoch's seconds; a table holds their mean."""


def trained(name: str, folder: Path = TABLES_FOLDER) -> Problem:
    """Return the problem of a table, in which one of a configuration's trainings is drawn for each trial.

    Raises:
        ProblemMissing: the folder has no such table.
    """
    table = TrainedTable.read(name.removeprefix(PREFIX), folder)

    def training(params: Params, rng: np.random.Generator) -> Training:
        seed = int(rng.integers(2**31))
        spread = np.exp(_DURATION_SPREAD * rng.standard_normal(table.epochs + 1))
        values, failed = table.curve(params, seed), table.failure(params, seed)
        seconds = table.seconds(params) * spread[: len(values) + (failed is not None)]
        return Training(
            values=tuple(values.tolist()),
            seconds=tuple(seconds.tolist()),
            failure=None if failed is None else FailureKind(failed.kind),
        )

    def end(params: Params) -> float:
        lasts = [table.chance if one.failed else float(one.top1[-1]) for one in table.trainings(params)]
        return float(np.mean(lasts))

    return replace(table.problem(), name=name, epochs=table.epochs, training=training, end=end)
