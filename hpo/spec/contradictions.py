"""What no field shows by itself: numbers that no trial can reach, and parts of a spec that exclude each other.

Asked when a study is created, not when it is read: a study from before a check existed continues.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..errors import SpecIssue
from .guesses import broken_by
from .parameters import FloatParameter
from .rules import impossible, is_possible, said
from .study import StudySpec, ThresholdStopping
from .tasks.video import VideoTask

MOST_VALUES: Final = 1_000_000
"""A real range with more steps than this is as good as one without, and some searches list all its values."""


def contradictions(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield an issue for each."""
    if too_fine := list(_steps(spec)):
        yield from too_fine
        return  # what follows may count the values of the space
    yield from _bounds(spec)
    yield from _finalists(spec)
    yield from _unfreezing(spec)
    yield from rule_issues(spec)
    for path, metric, value in _levels(spec):
        if value is not None and spec.task.reported_metrics[metric].is_share and not 0 <= value <= 1:
            message = f"{value:g} is out of reach: {metric} is a share from 0 to 1, so 90 % is 0.9"
            yield SpecIssue(path=path, message=message)


def _steps(spec: StudySpec) -> Iterator[SpecIssue]:
    for key, parameter in spec.space.items():
        if not isinstance(parameter, FloatParameter) or parameter.step is None:
            continue
        if (parameter.high - parameter.low) / parameter.step > MOST_VALUES:
            message = f"{parameter.step:g} makes over {MOST_VALUES:,} values of this range; leave it out, or use more"
            yield SpecIssue(path=f"space.{key}.step", message=message)


def rule_issues(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield an issue if no configuration was found that keeps all rules, else one for each guess that breaks one."""
    book = spec.rulebook
    if not book.rules:
        return
    if not is_possible(book):
        place, needed = impossible(book)
        text, others = book.rules[place].text, " and ".join(f"`{book.rules[other].text}`" for other in needed)
        tried = said(book.of([book.rules[other] for other in [*needed, place]]))
        why = f"no configuration keeps the rule `{text}`" + (f" together with {others}" if others else "")
        yield SpecIssue(path=_written(spec, place), message=f"{why} ({tried}); widen the space, or change the rule")
        return
    for place, message in broken_by(book, spec.optimizer.enqueue):
        yield SpecIssue(path=f"optimizer.enqueue[{place}]", message=message)


def _written(spec: StudySpec, place: int) -> str:
    own = len(spec.rules)
    return f"rules[{place}]" if place < own else f"model_rules[{place - own}]"


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


def _finalists(spec: StudySpec) -> Iterator[SpecIssue]:
    found, trials = spec.finalists, spec.budget.trials
    if found is not None and trials is not None and not found.most_of(trials):
        message = f"{found.share:g} of {trials} trials is less than one training; raise it, or budget.trials"
        yield SpecIssue(path="finalists.share", message=message)


def _unfreezing(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield an issue if layers would be unfrozen in a study that freezes none."""
    path, every = _values(spec, "unfreeze_every", 0)
    is_alone = set(_values(spec, "freeze", "none")[1]) == {"none"}
    if isinstance(spec.task, VideoTask) and any(every) and is_alone:
        message = "no layer is frozen that it could unfreeze; set `freeze` as well, or leave it out"
        yield SpecIssue(path=path, message=message)


def _values(spec: StudySpec, key: str, default: str | int) -> tuple[str, list[object]]:
    """Return where a setting of the task is given, and its values: of a range, both ends."""
    if key in spec.space:
        return f"space.{key}", list(spec.space[key].extremes)
    return f"task.base.{key}", [spec.task.base.get(key, default)]


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
