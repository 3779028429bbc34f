"""What a stopping rule compares, as marks of single trials: with them no decision reads the curves of other trials.

A mark is a number of one trial at one place of a board: its best value, its value at a rung, its value after an epoch
once it is completed. The marks of a trial follow from its record alone, so whoever keeps them replaces them whenever
the record changes. A rule then asks how many marks of other trials are better than its own, which an index answers.

`judge` decides exactly as `decide` does from whole curves, but for the rule `curves`, which also needs a model of all
curves of the study: in a large study that is of a moment before (`study_curves`). There are no marks with several
objectives or constraints, where which trial is better depends on all trials that have reported the same step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ..results.outcome import trailing
from ..spec import StudySpec
from ..spec.study import (
    AshaStopping,
    CurvesStopping,
    HyperbandStopping,
    MedianStopping,
    NoStopping,
    PatientStopping,
    PercentileStopping,
    ThresholdStopping,
)
from ..trial import Decision, TrialRecord, TrialState
from .curve_model import Curve
from .decide import finite_curve, gain_curve, has_result, is_due, peaks, value_curve
from .halving import bracket_of, judged_rungs, rungs_of, value_at
from .pausing import Effort, are_all_begun, is_at_pause, may_finish_one, pause_rung
from .simple_rules import between, patience_stops, threshold_stops
from .study_curves import StudyCurves

COMPLETED: Final = "completed"
"""Completed trials: 1 for one with a result, 0 for one without."""
PEAK: Final = "peak"
"""The best value that a trial has shown; more is better."""
EPOCH: Final = "epoch"
"""The value of a completed trial after as many epochs as the place says, as it was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A number by which a trial is compared with others."""

    board: str
    place: int
    value: float
    """What other trials are compared with."""
    own: float | None = None
    """What is compared with the marks of other trials when this one is judged; None where it is not judged now."""


class Rivals(Protocol):
    """The marks of the other trials of a study."""

    def completed(self, *, most: int, with_result: bool = False) -> int:
        """Return how many are completed, or `most` if they are more; only those with a result if asked."""
        ...

    def best(self) -> float | None:
        """Return the best value that any of them has shown; None before there is one."""
        ...

    def above(self, board: str, place: int, value: float) -> tuple[int, int]:
        """Return how many have a mark there, and how many of these are greater than `value`."""
        ...

    def around(self, place: int, share: float) -> tuple[int, Sequence[float]]:
        """Return how many values there are after epoch `place`, n, and the sorted ones from floor((n - 1) share) on.

        One or two values; none where n is 0.
        """
        ...

    def curves(self) -> StudyCurves:
        """Return the curves of all trials of the study, for the rule `curves`."""
        ...

    def effort(self, rung: int) -> Effort:
        """Return what was spent on the others, for the rule `curves` where trials pause at `rung`."""
        ...

    def paused_ends(self, own: Curve) -> tuple[float, Sequence[tuple[float, int]]]:
        """Return the expected end of a curve, and those of all other paused trials with their numbers."""
        ...


def rung_board(bracket: int) -> str:
    """Return the board of the values at the rungs of a bracket; more is better."""
    return f"rung {bracket}"


def has_marks(spec: StudySpec) -> bool:
    """Return whether the rule of a study decides by marks."""
    is_plain = len(spec.objectives) == 1 and not spec.constraints
    return is_plain and not isinstance(spec.early_stopping, NoStopping)


def marks_of(spec: StudySpec, record: TrialRecord) -> list[Mark]:
    """Return the marks of a trial; none of a replicate, a withdrawn one or one from elsewhere."""
    if not has_marks(spec) or not record.is_rival:
        return []
    shown, measured = trailing(record, _last_epochs(spec)), _measured(spec, record)
    found = []
    if record.state is TrialState.COMPLETED:
        found.append(Mark(board=COMPLETED, place=0, value=float(has_result(spec, record))))
    own_best = max((value for (value,) in peaks(spec, measured)), default=None)
    best = max((value for (value,) in peaks(spec, shown)), default=None)
    if best is not None:
        found.append(Mark(board=PEAK, place=0, value=best, own=own_best))
    match spec.early_stopping:
        case AshaStopping() | HyperbandStopping():
            found += _rung_marks(spec, record, shown, measured)
        case MedianStopping() | PercentileStopping() if record.state is TrialState.COMPLETED:
            if has_result(spec, shown):
                curve = value_curve(spec, shown)
                found += [Mark(board=EPOCH, place=step, value=value) for step, value in curve.items()]
    return found


def judge(spec: StudySpec, trial: TrialRecord, rivals: Rivals) -> Decision:
    """Return whether `trial`, whose curve ends with the report just made, continues, pauses or stops."""
    measured = _measured(spec, trial)
    rule = spec.early_stopping
    if trial.replicate_of is not None or isinstance(rule, NoStopping):
        return Decision.CONTINUE
    is_asked = is_due(spec, trial, measured) and rivals.completed(most=rule.startup_trials) >= rule.startup_trials
    if is_asked and _stops(spec, measured, rivals) and not _leads(spec, measured, rivals):
        return Decision.PAUSE if getattr(rule, "pause", False) else Decision.STOP
    if isinstance(rule, CurvesStopping) and trial.last_step == measured.last_step:
        return Decision.PAUSE if _must_pause(spec, rule, measured, rivals) else Decision.CONTINUE
    return Decision.CONTINUE


def is_outside(reduction: int, others: int, better: int) -> bool:
    """Return whether a trial with `better` of `others` above it at a rung is outside the best 1/`reduction` there."""
    return better >= max((others + 1) // reduction, 1)


def _measured(spec: StudySpec, record: TrialRecord) -> TrialRecord:
    """Return a trial as the rule sees it when it is judged: without the steps whose objective is not finite."""
    return trailing(replace(record, state=TrialState.RUNNING, curve=finite_curve(spec, record)), _last_epochs(spec))


def _last_epochs(spec: StudySpec) -> Mapping[str, int]:
    """Return over how many epochs values are means; the rule `curves` has a model of the noise of single ones."""
    return {} if isinstance(spec.early_stopping, CurvesStopping) else spec.last_epochs


def _rung_marks(spec: StudySpec, record: TrialRecord, shown: TrialRecord, measured: TrialRecord) -> list[Mark]:
    rungs, curve, own = rungs_of(spec, record.number), gain_curve(spec, shown), gain_curve(spec, measured)
    judged = judged_rungs(rungs, own) if is_due(spec, record, measured) else []
    board = rung_board(bracket_of(spec, record.number))
    return [
        Mark(board=board, place=rung, value=value, own=own[max(own)] if rung in judged else None)
        for rung in rungs
        if (value := value_at(curve, rung)) is not None
    ]


def _stops(spec: StudySpec, measured: TrialRecord, rivals: Rivals) -> bool:
    gains = gain_curve(spec, measured)
    match rule := spec.early_stopping:
        case ThresholdStopping():
            return threshold_stops(rule.lower, rule.upper, value_curve(spec, measured))
        case PatientStopping():
            return patience_stops(rule.patience, gains)
        case CurvesStopping():
            return rivals.curves().is_hopeless(gains)
        case AshaStopping() | HyperbandStopping():
            board = rung_board(bracket_of(spec, measured.number))
            judged = judged_rungs(rungs_of(spec, measured.number), gains)
            return any(is_outside(rule.reduction, *rivals.above(board, rung, gains[max(gains)])) for rung in judged)
        case MedianStopping() | PercentileStopping():
            percentile = rule.percentile if isinstance(rule, PercentileStopping) else 50.0
            needed = rule.startup_trials
            is_known = rivals.completed(most=needed, with_result=True) >= needed
            return is_known and _is_outside_percentile(spec, percentile, value_curve(spec, measured), rivals)
    return False


def _must_pause(spec: StudySpec, rule: CurvesStopping, measured: TrialRecord, rivals: Rivals) -> bool:
    """Return whether a trial has come to where trials pause, and is not the one that continues at once."""
    if not is_at_pause(spec, rule, measured):
        return False
    step, rung, others = max(measured.curve), pause_rung(spec, rule), rivals.effort(pause_rung(spec, rule))
    effort = Effort(
        begun=others.begun + 1,
        explored=others.explored + min(step, rung),
        finished=others.finished + max(step - rung, 0),
    )
    if are_all_begun(spec, effort):
        return False
    if not may_finish_one(spec, rule, effort):
        return True
    own, waiting = rivals.paused_ends(gain_curve(spec, measured))
    return any((end, -number) > (own, -measured.number) for end, number in waiting)


def _is_outside_percentile(spec: StudySpec, percentile: float, own: Curve, rivals: Rivals) -> bool:
    maximize = spec.objectives[0].direction == "maximize"
    share = (100 - percentile if maximize else percentile) / 100
    count, near = rivals.around(max(own), share)
    if not count:
        return False
    bar = between(near, (count - 1) * share)
    return max(own.values()) < bar if maximize else min(own.values()) > bar


def _leads(spec: StudySpec, measured: TrialRecord, rivals: Rivals) -> bool:
    best = rivals.best()
    return any(best is None or value >= best for (value,) in peaks(spec, measured))
