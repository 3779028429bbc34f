"""How well the models of a study predict outcomes that they have not seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from ...arrays import Array, Indices
from ...spec import StudySpec
from .models import Data, model

_FOLDS: Final = 10
_MANY_OUTCOMES: Final = 100
_FOLDS_OF_MANY: Final = 5
"""With more outcomes than that, a fifth is left out at a time."""


def predictions_without(spec: StudySpec, data: Data, rows: Indices, name: str, *, seed: int) -> tuple[Array, Array]:
    """Return predictions of a metric at some rows of `data`, each by a model that has not seen it.

    They are means and standard deviations, (rows,) each, in the unit of the metric.

    A tenth of the rows is left out at a time, of many a fifth. Hyperparameters and transform are chosen anew each
    time: those that all outcomes have led to fit also what is noise.

    Args:
        rows: outcomes to predict; all others are always known.
        seed: of the folds.
    """
    folds = _FOLDS_OF_MANY if len(rows) > _MANY_OUTCOMES else min(_FOLDS, len(rows))
    fold_of = np.random.default_rng(seed).permutation(len(rows)) % folds
    means, sds = np.empty(len(rows)), np.empty(len(rows))
    for fold in range(folds):
        places = np.flatnonzero(fold_of == fold)
        kept = np.setdiff1d(np.arange(len(data.outcomes)), rows[places])
        known = replace(data, points=data.points[kept], outcomes=[data.outcomes[row] for row in kept])
        fitted = next(metric for metric in model(spec, known) if metric.name == name)
        means[places], sds[places] = fitted.predict(data.points[rows[places]])
    return means, sds
