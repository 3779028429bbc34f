"""What no field shows by itself: numbers that no trial can reach, and parts of a spec that exclude each other.

Asked when a study is created, not when it is read: a study from before a check existed continues.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import SpecIssue
from .study import StudySpec, ThresholdStopping


def contradictions(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield an issue for each."""
    yield from _bounds(spec)
    for path, metric, value in _levels(spec):
        if value is not None and spec.task.reported_metrics[metric].is_share and not 0 <= value <= 1:
            message = f"{value:g} is out of reach: {metric} is a share from 0 to 1, so 90 % is 0.9"
            yield SpecIssue(path=path, message=message)


def _bounds(spec: StudySpec) -> Iterator[SpecIssue]:
    rule = spec.early_stopping
    ends = (rule.lower, rule.upper) if isinstance(rule, ThresholdStopping) else (None, None)
    if ends[0] is not None and ends[1] is not None and ends[0] >= ends[1]:
        message = f"`lower` ({ends[0]:g}) must be less than `upper` ({ends[1]:g})"
        yield SpecIssue(path="early_stopping", message=message)
    least = [constraint for constraint in spec.constraints if constraint.relation == ">="]
    for place, most in enumerate(spec.constraints):
        for other in least:
            if most.relation == "<=" and most.metric == other.metric and most.bound < other.bound:
                message = f"{most.metric} cannot be at most {most.bound:g} and at least {other.bound:g}; drop one"
                yield SpecIssue(path=f"constraints[{place}]", message=message)


def _levels(spec: StudySpec) -> Iterator[tuple[str, str, float | None]]:
    """Yield where a level of a metric is written, the metric and the level."""
    for metric, value in spec.budget.target.items():
        yield f"budget.target.{metric}", metric, value
    for place, constraint in enumerate(spec.constraints):
        yield f"constraints[{place}]", constraint.metric, constraint.bound
    for place, objective in enumerate(spec.objectives):
        yield f"objectives[{place}].noise_sd", objective.metric, objective.noise_sd
    if isinstance(spec.early_stopping, ThresholdStopping):
        yield "early_stopping.lower", spec.objectives[0].metric, spec.early_stopping.lower
        yield "early_stopping.upper", spec.objectives[0].metric, spec.early_stopping.upper
