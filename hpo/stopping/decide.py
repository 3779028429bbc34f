"""Decide after a report whether a trial continues: rules over the curves of the study, within guards of ours.

`decide` is a pure function of the spec and the records, so every replica of the API gives the same answer and a
restart changes nothing. Median, percentile, threshold and patience are in `simple_rules`, ASHA and Hyperband in
`halving`, the rule `curves` is in `curves` with its model in `curve_model` and its pauses in `pausing`;
docs/early-stopping.md says what each is for.

Guards: no trial is stopped before `min_epochs`, before `startup_trials` of the study are completed, after its last
epoch, or while it is the best of the study (with several objectives: while no other trial dominates it). An early
pause (`pausing`) does not stop the trial and has guards of its own.

A replicate, which trains the configuration of an earlier trial again, runs to its end, and counts for no rule: that
its configuration is good is known already, and what is asked is how good it is at its end.

With several objectives or with constraints, the rules that compare trials see, in place of the objective, each trial's
score among those that have reported the same step (`results.ranking.scores`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..results.outcome import final_metrics, finite, gain, is_feasible, metric_curve, trailing
from ..results.ranking import dominates, gains, scores
from ..spec import Objective, StudySpec
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
from ..trial import Decision, Metrics, TrialRecord, TrialState
from .curve_model import Curve
from .curves import hopeless, is_at_rung
from .halving import bracket_of, halving_stops, rungs_of
from .pausing import is_at_pause, must_pause, resumable
from .simple_rules import patience_stops, percentile_stops, threshold_stops


def decide(spec: StudySpec, trial: TrialRecord, others: Sequence[TrialRecord]) -> Decision:
    """Return whether `trial`, whose curve ends with the report just made, continues, pauses or stops.

    `others` are the records of its study, in any order; it may be among them.
    """
    if trial.replicate_of is not None:
        return Decision.CONTINUE
    rivals = [record for record in _searching(others) if record.id != trial.id]
    measured = replace(trial, state=TrialState.RUNNING, curve=finite_curve(spec, trial))
    rule = spec.early_stopping
    may_pause = getattr(rule, "pause", False)
    # In this order, since what comes later takes longer.
    if _may_stop(spec, trial, measured, rivals) and _is_behind(spec, measured, rivals):
        return Decision.PAUSE if may_pause else Decision.STOP
    is_measured = trial.last_step == measured.last_step  # not every epoch need be validated
    if isinstance(rule, CurvesStopping) and is_measured and must_pause(spec, rule, measured, rivals):
        return Decision.PAUSE
    return Decision.CONTINUE


def is_asked(spec: StudySpec, trial: TrialRecord) -> bool:
    """Return whether `decide` would look at other trials after the last report of `trial`."""
    if trial.replicate_of is not None:
        return False
    measured = replace(trial, state=TrialState.RUNNING, curve=finite_curve(spec, trial))
    rule = spec.early_stopping
    is_measured = trial.last_step == measured.last_step
    may_pause = isinstance(rule, CurvesStopping) and is_measured and is_at_pause(spec, rule, measured)
    return may_pause or is_due(spec, trial, measured)


def _is_behind(spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Return whether the rule stops a trial that does not lead; all but `curves` compare means over the last epochs."""
    if not isinstance(spec.early_stopping, CurvesStopping):  # which has a model of the noise of single epochs
        measured = trailing(measured, spec.last_epochs)
        rivals = [trailing(rival, spec.last_epochs) for rival in rivals]
    return _rule_stops(spec, measured, rivals) and not _leads(spec, measured, rivals)


def promotions(spec: StudySpec, records: Sequence[TrialRecord]) -> list[int]:
    """Return the ids of the paused trials of a study that the rule would let continue by what is known now."""
    paused = [record for record in _searching(records) if record.state is TrialState.PAUSED]
    if not isinstance(spec.early_stopping, CurvesStopping):
        return [record.id for record in paused if decide(spec, record, records) is Decision.CONTINUE]
    others = _searching(records)
    measured = [replace(record, curve=finite_curve(spec, record)) for record in paused]
    asked = [trial for trial, record in zip(measured, paused, strict=True) if _may_stop(spec, record, trial, others)]
    behind = hopeless(spec, spec.early_stopping, asked, others)
    candidates = [trial for trial in measured if trial.id not in behind or _leads(spec, trial, others)]
    return resumable(spec, spec.early_stopping, candidates, others)


def _searching(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.is_rival]


def _may_stop(spec: StudySpec, trial: TrialRecord, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Return whether the rule is asked at all."""
    rule = spec.early_stopping
    if isinstance(rule, NoStopping) or not is_due(spec, trial, measured):
        return False
    completed = sum(record.state is TrialState.COMPLETED for record in rivals)
    return completed >= rule.startup_trials


def is_due(spec: StudySpec, trial: TrialRecord, measured: TrialRecord) -> bool:
    """Return whether a trial is one that the rule may stop now, as far as its own curve says.

    `measured` is the trial without the steps where an objective is not finite.
    """
    rule, step = spec.early_stopping, trial.last_step
    if isinstance(rule, NoStopping) or step is None or step != measured.last_step:
        return False
    if not rule.min_epochs <= step < spec.task.epochs:
        return False
    return not isinstance(rule, CurvesStopping) or is_at_rung(spec, rule, measured)


def _leads(spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Return whether no outcome of another trial is better than the best the trial has shown; a tie still leads."""
    own = peaks(spec, measured)
    theirs = [peak for rival in rivals for peak in peaks(spec, rival)]
    return any(not any(dominates(other, peak) for other in theirs) for peak in own)


def peaks(spec: StudySpec, record: TrialRecord) -> list[tuple[float, ...]]:
    """Return the outcomes a feasible trial has shown, more is better: the best alone where there is one objective."""
    metrics = final_metrics(record)
    if not is_feasible(spec, metrics):
        return []
    if len(spec.objectives) > 1:
        return [shown for row in (*record.curve.values(), metrics) if (shown := gains(spec, row)) is not None]
    found = [(value,) for value in gain_curve(spec, record).values()]
    last = gains(spec, metrics)
    return [max([*found, last])] if last is not None else [max(found)] if found else []


def _rule_stops(spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    match rule := spec.early_stopping:
        case CurvesStopping():
            return bool(hopeless(spec, rule, [measured], [measured, *rivals]))
        case ThresholdStopping():
            return threshold_stops(rule.lower, rule.upper, value_curve(spec, measured))
        case PatientStopping():
            return patience_stops(rule.patience, gain_curve(spec, measured))
        case AshaStopping() | HyperbandStopping():
            return _is_outside_rung(rule, *_comparable(spec, measured, rivals))
        case MedianStopping() | PercentileStopping():
            return _is_outside_percentile(rule, *_comparable(spec, measured, rivals))
    return False


def _is_outside_rung(
    rule: AshaStopping | HyperbandStopping, spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]
) -> bool:
    bracket = bracket_of(spec, measured.number)
    same = [gain_curve(spec, rival) for rival in rivals if bracket_of(spec, rival.number) == bracket]
    return halving_stops(rungs_of(spec, measured.number), rule.reduction, gain_curve(spec, measured), same)


def _is_outside_percentile(
    rule: MedianStopping | PercentileStopping, spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]
) -> bool:
    objective, own = spec.objectives[0], value_curve(spec, measured)
    completed = [rival for rival in rivals if rival.state is TrialState.COMPLETED and has_result(spec, rival)]
    if len(completed) < rule.startup_trials:
        return False
    there = [finite(rival.curve.get(max(own), {}), objective.metric) for rival in completed]
    percentile = rule.percentile if isinstance(rule, PercentileStopping) else 50.0
    known = [value for value in there if value is not None]
    return percentile_stops(percentile, own, known, maximize=objective.direction == "maximize")


def has_result(spec: StudySpec, record: TrialRecord) -> bool:
    """Return whether the objective was finite at the end, or at any epoch of a trial without final metrics."""
    if record.metrics:
        return finite(record.metrics, spec.objectives[0].metric) is not None
    return bool(value_curve(spec, record))


def _comparable(
    spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]
) -> tuple[StudySpec, TrialRecord, list[TrialRecord]]:
    """Return the same with scores in place of the objective where one number does not say which trial is better."""
    if len(spec.objectives) == 1 and not spec.constraints:
        return spec, measured, list(rivals)
    records = [measured, *rivals]
    steps = {step for record in records for step in record.curve}
    scored = {
        step: scores(spec, {record.id: record.curve[step] for record in records if step in record.curve})
        for step in steps
    }
    metric = spec.objectives[0].metric
    shown = [
        replace(
            record,
            curve={step: {metric: scored[step][record.id]} for step in record.curve if record.id in scored[step]},
            metrics=None,
        )
        for record in records
    ]
    single = spec.model_copy(update={"objectives": [Objective(metric=metric, direction="maximize")], "constraints": []})
    return single, shown[0], shown[1:]


def value_curve(spec: StudySpec, record: TrialRecord) -> Curve:
    return metric_curve(record.curve, spec.objectives[0].metric)


def gain_curve(spec: StudySpec, record: TrialRecord) -> Curve:
    objective = spec.objectives[0]
    return metric_curve(record.curve, objective.metric, gain(objective, 1.0))


def finite_curve(spec: StudySpec, record: TrialRecord) -> Mapping[int, Metrics]:
    """Leave out the steps where an objective is missing or not finite: a worker ends such a trial as diverged."""
    return {step: row for step, row in record.curve.items() if gains(spec, row) is not None}
