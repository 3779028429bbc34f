"""What a partial learning curve says of the value at the end.

The completed trials of the study show how much a metric still changes after a given epoch. A trial that was stopped
there, or is still running, is given the end they suggest, with the uncertainty of that step as extra noise: it informs
the model, and the less the earlier it ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...outcomes import final_metrics, finite
from ...trial import Params, TrialRecord, TrialState
from ..history import History

_TRUST = 4.0
"""How many completed curves weigh as much as the prior belief that all curves move in parallel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known, or expected, of one configuration at full length."""

    params: Params
    values: Mapping[str, float]
    sds: Mapping[str, float]
    """Standard deviation of each value around the end of the curve; 0 where it was measured."""
    is_pending: bool


def outcomes(history: History) -> list[Outcome]:
    """Give the outcome of every trial that has shown one, partial ones carried to their last epoch."""
    full = history.spec.task.epochs
    completed = [record for record in history.records if record.state is TrialState.COMPLETED]
    pending = (TrialState.SUGGESTED, TrialState.RUNNING, TrialState.PAUSED)
    found = []
    for seen in history.observations:
        if not seen.metrics:
            continue
        values, sds = dict(seen.metrics), {**dict.fromkeys(seen.metrics, 0.0), **seen.vague}
        if seen.state is not TrialState.COMPLETED and seen.step < full:
            for name, value in seen.metrics.items():
                values[name], sds[name] = carried(value, *_pairs(completed, name, seen.step))
        found.append(Outcome(params=seen.params, values=values, sds=sds, is_pending=seen.state in pending))
    return found


def carried(value: float, early: Sequence[float], late: Sequence[float]) -> tuple[float, float]:
    """Give the expected end of a curve that has come to `value`, and its standard deviation.

    `early` and `late` are values of completed curves at the same step and at their ends. The end is a line in the early
    value, shrunk towards slope 1; without completed curves the value itself stands.
    """
    if not early:
        return value, 0.0
    x, y = np.array(early), np.array(late)
    shift = float(np.mean(y - x))
    spread = float(np.var(x))
    deviation = x - x.mean()
    weight = _TRUST * max(spread, 1e-300)
    slope = (float(deviation @ (y - y.mean())) + weight) / (float(deviation @ deviation) + weight)
    # Beyond the curves seen, and for a slope that is not a slope at all, the line is not to be trusted.
    slope = min(max(slope, 0.0), 2.0)
    end = float(y.mean()) + slope * (value - float(x.mean()))
    residual = y - y.mean() - slope * deviation
    prior = (0.5 * shift) ** 2
    variance = (float(residual @ residual) + 2 * prior) / (len(x) + 1)
    return end, math.sqrt(variance * (1 + 1 / len(x)))


def _pairs(completed: Sequence[TrialRecord], name: str, step: int) -> tuple[list[float], list[float]]:
    early, late = [], []
    for record in completed:
        start = finite(record.curve.get(step, {}), name)
        end = finite(final_metrics(record), name)
        if start is not None and end is not None:
            early.append(start)
            late.append(end)
    return early, late
