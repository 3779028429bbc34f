"""How the outcome of a trial counts: values of the objectives, violations of the constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from ..spec import Objective, StudySpec
from ..trial import Metrics, TrialRecord

MEMORY_METRIC: Final = "peak_memory_gib"
"""The metric that every kind of task reports where the device can tell; it bounds what fits."""


def final_metrics(record: TrialRecord) -> Metrics:
    """Return the final metrics of a trial; those of its last step while it has none."""
    if record.metrics:
        return record.metrics
    return record.curve[record.last_step] if record.last_step is not None else {}


def finite(metrics: Metrics, name: str) -> float | None:
    """Return a metric, None where it is missing or not finite."""
    value = metrics.get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def metric_sign(spec: StudySpec, name: str) -> float | None:
    """Return the factor that turns a metric so that more is better; None for one that is only constrained."""
    return next((gain(objective, 1.0) for objective in spec.objectives if objective.metric == name), None)


def metric_curve(curve: Mapping[int, Metrics], name: str, sign: float = 1.0) -> dict[int, float]:
    """Return a metric times `sign` by step, without the steps where it is missing or not finite."""
    return {step: sign * row[name] for step, row in curve.items() if math.isfinite(row.get(name, math.nan))}


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
