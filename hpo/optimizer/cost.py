"""The predicted cost of a configuration: the GPU seconds of a full-length trial, from the epochs measured so far.

The logarithm of the seconds per epoch is regressed on the shape of the configuration, over all models of the zoo
together. An epoch reads every video once, with any batch size, so time is assumed to grow with frames x size^2 alone.
With a budget of GPU hours, the acquisition is divided by this cost (expected improvement per second: Snoek et al.,
2012, "Practical Bayesian Optimization of Machine Learning Algorithms", section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from ..trial import Params, TrialRecord
from .history import History
from .shape_regression import Shape, ShapeRegression

_MIN_MEASURED_TRIALS: Final = 4
"""Number of measured trials from which on costs are predicted."""


def expected_cost(history: History) -> Callable[[Params], float] | None:
    """Return a function from a configuration to the GPU seconds of all its epochs; None with too few measurements."""
    seen = [(record, seconds) for record in history.records if (seconds := seconds_per_epoch(record)) is not None]
    if len(seen) < _MIN_MEASURED_TRIALS:
        return None
    shape = Shape(history.spec, history.spec.task.time_powers, with_model=True)
    fit = ShapeRegression(
        np.array([shape.features(record.params) for record, _ in seen]),
        np.log([seconds for _, seconds in seen]),
        np.zeros(len(seen), dtype=bool),
        [""] * len(seen),
        shape.beliefs,
    )
    epochs = history.spec.task.epochs
    return lambda params: epochs * math.exp(fit.predict(shape.features(params)))


def seconds_per_epoch(record: TrialRecord) -> float | None:
    """Return the mean GPU seconds of the epochs of a trial; None before the first was measured."""
    if not record.curve or record.gpu_seconds <= 0:
        return None
    return record.gpu_seconds / max(record.epochs_done, len(record.curve))
