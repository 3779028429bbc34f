"""How the outcome of a trial counts: values of the objectives, violations of the constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Final

from ..spec import Objective, StudySpec
from ..trial import RESULT_STATES, Metrics, TrialRecord

MEMORY_METRIC: Final = "peak_memory_gib"
"""The metric that every kind of task reports where the device can tell; it bounds what fits."""


def final_metrics(record: TrialRecord) -> Metrics:
    """Return the final metrics of a trial; those of its last step while it has none."""
    if record.metrics:
        return record.metrics
    return record.curve[record.last_step] if record.last_step is not None else {}


def settled(record: TrialRecord, last_epochs: Mapping[str, int]) -> TrialRecord:
    """Return an ended trial whose final values of some metrics are means over its last epochs, as its curve has them.

    Whoever makes a record calls this, so that all who read its final metrics agree. A trial that has not ended, or has
    no curve, stays as it is.

    Args:
        last_epochs: by metric, over how many epochs, as `StudySpec.last_epochs` has it.
    """
    if not last_epochs or record.state not in RESULT_STATES or not record.curve:
        return record
    return replace(record, metrics=settled_metrics(final_metrics(record), record.curve, last_epochs))


def settled_metrics(final: Metrics, curve: Mapping[int, Metrics], last_epochs: Mapping[str, int]) -> dict[str, float]:
    """Return final metrics with some of them replaced by their means over the last epochs of a curve.

    What the last epoch of the curve lacks is taken from `final`: a trial that is stopped between two validations is
    validated once more at its end.
    """
    if not curve:
        return dict(final)
    last = max(curve)
    return {**final, **means({**curve, last: {**final, **curve[last]}}, last_epochs)}


def trailing(record: TrialRecord, last_epochs: Mapping[str, int]) -> TrialRecord:
    """Return a trial in whose curve each value of some metrics is the mean over the last epochs up to it."""
    if not last_epochs or not record.curve:
        return record
    steps, most = sorted(record.curve), max(last_epochs.values())
    rows = [record.curve[step] for step in steps]
    curve = {}
    for place, step in enumerate(steps):
        window = rows[max(place + 1 - most, 0) : place + 1]
        curve[step] = {**rows[place], **_means(window, last_epochs)}
    return replace(record, curve=curve)


def means(curve: Mapping[int, Metrics], last_epochs: Mapping[str, int]) -> dict[str, float]:
    """Return the means of metrics over the last epochs of a curve; without those that its last epoch does not have.

    An epoch in which a metric is missing or not finite is left out of its mean.
    """
    return _means([curve[step] for step in sorted(curve)], last_epochs) if curve else {}


def _means(rows: Sequence[Metrics], last_epochs: Mapping[str, int]) -> dict[str, float]:
    """Return the means of `means` from the metrics after each epoch, in order, at least one."""
    found: dict[str, float] = {}
    for name, count in last_epochs.items():
        if finite(rows[-1], name) is not None:
            found[name] = fmean(_finite_values(rows[-count:], name))
    return found


def _finite_values(rows: Sequence[Metrics], name: str) -> list[float]:
    return [value for row in rows if (value := finite(row, name)) is not None]


def finite(metrics: Metrics, name: str) -> float | None:
    """Return a metric, None where it is missing or not finite."""
    value = metrics.get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def metric_sign(spec: StudySpec, name: str) -> float | None:
    """Return the factor that turns a metric so that more is better; None for one that is only constrained."""
    return next((gain(objective, 1.0) for objective in spec.objectives if objective.metric == name), None)


def metric_curve(curve: Mapping[int, Metrics], name: str, sign: float = 1.0) -> dict[int, float]:
    """Return a metric times `sign` by step, without the steps where it is missing or not finite."""
    return {
        step: sign * value
        for step, row in curve.items()
        if (value := row.get(name)) is not None and math.isfinite(value)
    }


def objective_values(spec: StudySpec, metrics: Metrics) -> tuple[float, ...] | None:
    """Return the values of the objectives in the order of the spec; None unless all are there and finite."""
    values = [finite(metrics, objective.metric) for objective in spec.objectives]
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def violations(spec: StudySpec, metrics: Metrics) -> tuple[float, ...]:
    """Return how far each constraint is violated (0 or less: it holds); an unknown metric violates without end."""
    found = [(constraint, finite(metrics, constraint.metric)) for constraint in spec.constraints]
    return tuple(math.inf if value is None else constraint.violation(value) for constraint, value in found)


def total_violation(spec: StudySpec, metrics: Metrics) -> float:
    """Return the sum of what is violated; 0 for a feasible outcome."""
    return sum(max(violation, 0.0) for violation in violations(spec, metrics))


def is_feasible(spec: StudySpec, metrics: Metrics) -> bool:
    """Return whether every constraint is known to hold."""
    return total_violation(spec, metrics) == 0


def gain(objective: Objective, value: float) -> float:
    """Turn a value of an objective into one where more is better."""
    return value if objective.direction == "maximize" else -value
