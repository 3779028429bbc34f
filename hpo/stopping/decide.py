"""Decide after a report whether a trial goes on: rules over the curves of the study, with guards of ours.

`decide` is a pure function of the spec and the records, so every replica of the API gives the same answer and a
restart changes nothing. Median, percentile, threshold and patience are Optuna's pruners over our records, halving and
Hyperband are in `rungs`, the rule `curves` is in `curve_stopping` with its model in `curve_model` and its
pauses in `deferral`; docs/early-stopping.md says what each is for.

Guards: no trial is stopped before `min_epochs`, before `startup_trials` of the study are completed, after its last
epoch, or while it is the best of the study (with several objectives: while no other trial dominates it). Waiting
early on (`deferral`) is no stop and has guards of its own.

With several objectives or with constraints, the rules that compare trials see, in place of the objective, each trial's
standing among those that have reported the same step (`standing.scores`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, PatientPruner, PercentilePruner, ThresholdPruner

from ..optuna_view.storage import MemorySource, StudyStorage
from ..results.outcome import final_metrics, gain, is_feasible, metric_curve
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
from .pausing import must_pause, resumable


def decide(spec: StudySpec, trial: TrialRecord, others: Sequence[TrialRecord]) -> Decision:
    """Say whether `trial`, whose curve ends with the report just made, goes on, pauses or stops.

    `others` are the records of its study, in any order; it may be among them.
    """
    rivals = [record for record in others if record.id != trial.id and record.state is not TrialState.WITHDRAWN]
    measured = replace(trial, state=TrialState.RUNNING, curve=_finite_curve(spec, trial))
    rule = spec.early_stopping
    may_pause = getattr(rule, "pause", False)
    # In this order, since what comes later takes longer.
    stops = _may_stop(spec, trial, measured, rivals) and _rule_stops(spec, measured, rivals)
    if stops and not _leads(spec, measured, rivals):
        return Decision.PAUSE if may_pause else Decision.STOP
    if isinstance(rule, CurvesStopping) and must_pause(spec, rule, measured, rivals):
        return Decision.PAUSE
    return Decision.CONTINUE


def promotions(spec: StudySpec, records: Sequence[TrialRecord]) -> list[int]:
    """Return the ids of the paused trials of a study that the rule would let go on by what is known now."""
    paused = [record for record in records if record.state is TrialState.PAUSED]
    if not isinstance(spec.early_stopping, CurvesStopping):
        return [record.id for record in paused if decide(spec, record, records) is Decision.CONTINUE]
    others = [record for record in records if record.state is not TrialState.WITHDRAWN]
    measured = [replace(record, curve=_finite_curve(spec, record)) for record in paused]
    asked = [trial for trial, record in zip(measured, paused, strict=True) if _may_stop(spec, record, trial, others)]
    lost = hopeless(spec, spec.early_stopping, asked, others)
    left = [trial for trial in measured if trial.id not in lost or _leads(spec, trial, others)]
    return resumable(spec, spec.early_stopping, left, others)


def _may_stop(spec: StudySpec, trial: TrialRecord, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Whether a rule is asked at all."""
    rule, step = spec.early_stopping, trial.last_step
    if isinstance(rule, NoStopping) or step is None or step != measured.last_step:
        return False
    if not rule.min_epochs <= step < spec.task.epochs:
        return False
    if isinstance(rule, CurvesStopping) and not is_at_rung(spec, rule, measured):
        return False
    completed = sum(record.state is TrialState.COMPLETED for record in rivals)
    return completed >= rule.startup_trials


def _leads(spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Whether no outcome of another trial is better than the best the trial has shown; a tie still leads."""
    own = _peaks(spec, measured)
    theirs = [peak for rival in rivals for peak in _peaks(spec, rival)]
    return any(not any(dominates(other, peak) for other in theirs) for peak in own)


def _peaks(spec: StudySpec, record: TrialRecord) -> list[tuple[float, ...]]:
    """Return the outcomes a feasible trial has shown, more is better: the best alone where there is one objective."""
    metrics = final_metrics(record)
    if not is_feasible(spec, metrics):
        return []
    if len(spec.objectives) > 1:
        return [shown for row in (*record.curve.values(), metrics) if (shown := gains(spec, row)) is not None]
    found = [(value,) for value in _gain_curve(spec, record).values()]
    last = gains(spec, metrics)
    return [max([*found, last])] if last is not None else [max(found)] if found else []


def _rule_stops(spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    rule = spec.early_stopping
    if isinstance(rule, CurvesStopping):
        return bool(hopeless(spec, rule, [measured], [measured, *rivals]))
    rivals = [replace(rival, curve=_finite_curve(spec, rival)) for rival in rivals]
    if isinstance(rule, AshaStopping | HyperbandStopping | MedianStopping | PercentileStopping):
        spec, measured, rivals = _comparable(spec, measured, rivals)
    if isinstance(rule, AshaStopping | HyperbandStopping):
        bracket = bracket_of(spec, measured.number)
        same = [rival for rival in rivals if bracket_of(spec, rival.number) == bracket]
        rungs = rungs_of(spec, measured.number)
        return halving_stops(rungs, rule.reduction, _gain_curve(spec, measured), [_gain_curve(spec, r) for r in same])
    source = MemorySource(spec, [*rivals, measured])
    study = optuna.Study(study_name=spec.name, storage=StudyStorage(source))
    trial = next(trial for trial in source.trials if trial.number == measured.number)
    return _pruner(spec).prune(study, trial)


def _comparable(
    spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]
) -> tuple[StudySpec, TrialRecord, list[TrialRecord]]:
    """Put standings in place of the objective where one number does not say which trial is better."""
    if len(spec.objectives) == 1 and not spec.constraints:
        return spec, measured, list(rivals)
    records = [measured, *rivals]
    steps = {step for record in records for step in record.curve}
    standing = {
        step: scores(spec, {record.id: record.curve[step] for record in records if step in record.curve})
        for step in steps
    }
    metric = spec.objectives[0].metric
    shown = [
        replace(
            record,
            curve={step: {metric: standing[step][record.id]} for step in record.curve if record.id in standing[step]},
            metrics=None,
        )
        for record in records
    ]
    single = spec.model_copy(update={"objectives": [Objective(metric=metric, direction="maximize")], "constraints": []})
    return single, shown[0], shown[1:]


def _pruner(spec: StudySpec) -> BasePruner:
    rule = spec.early_stopping
    match rule:
        case PercentileStopping() | MedianStopping():
            shared = {"n_startup_trials": rule.startup_trials, "n_warmup_steps": rule.min_epochs}
            if isinstance(rule, PercentileStopping):
                return PercentilePruner(rule.percentile, **shared)
            return MedianPruner(**shared)
        case ThresholdStopping():
            return ThresholdPruner(rule.lower, rule.upper, n_warmup_steps=rule.min_epochs)
        case PatientStopping():
            return _patient_pruner(rule.patience)
        case _:
            raise AssertionError("no rule of Optuna's")


@cache
def _patient_pruner(patience: int) -> PatientPruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # since 2021
        return PatientPruner(None, patience)


def _gain_curve(spec: StudySpec, record: TrialRecord) -> Curve:
    objective = spec.objectives[0]
    return metric_curve(record.curve, objective.metric, gain(objective, 1.0))


def _finite_curve(spec: StudySpec, record: TrialRecord) -> Mapping[int, Metrics]:
    """Leave out the steps where an objective is missing or not finite: a worker ends such a trial as diverged."""
    return {step: row for step, row in record.curve.items() if gains(spec, row) is not None}
