"""Decide after a report whether a trial goes on: Optuna's pruners over our records, with guards of ours.

`decide` is a pure function of the spec and the records, so every replica of the API gives the same answer and a
restart changes nothing. Optuna's successive halving keeps its rungs as attributes of the trials; they are derived
from the curves here instead: a trial's value at a rung is the one of the first step reported at or after it.

Guards: no trial is stopped before `min_epochs`, before `startup_trials` of the study are completed, after its last
epoch, or while it is the best of the study.
"""

from __future__ import annotations

import binascii
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)

from .optuna_storage import MemorySource, StudyStorage
from .outcomes import final_metrics, finite, gain, is_feasible
from .spec import StudySpec
from .spec.study import (
    AshaStopping,
    HyperbandStopping,
    MedianStopping,
    NoStopping,
    PatientStopping,
    PercentileStopping,
    ThresholdStopping,
)
from .trial import Decision, TrialRecord, TrialState


def decide(spec: StudySpec, trial: TrialRecord, others: Sequence[TrialRecord]) -> Decision:
    """Say whether `trial`, whose curve ends with the report just made, goes on or stops.

    `others` are the records of its study, in any order; it may be among them.
    """
    rivals = [record for record in others if record.id != trial.id and record.state is not TrialState.WITHDRAWN]
    measured = replace(trial, state=TrialState.RUNNING, curve=_finite_curve(spec, trial))
    if _may_stop(spec, trial, measured, rivals) and _rule_stops(spec, measured, rivals):
        return Decision.STOP
    return Decision.CONTINUE


def _may_stop(spec: StudySpec, trial: TrialRecord, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Whether a rule is asked at all."""
    rule, step = spec.early_stopping, trial.last_step
    if isinstance(rule, NoStopping) or len(spec.objectives) > 1 or step is None or step != measured.last_step:
        return False
    if not rule.min_epochs <= step < spec.task.epochs:
        return False
    completed = sum(record.state is TrialState.COMPLETED for record in rivals)
    return completed >= rule.startup_trials and not _leads(spec, measured, rivals)


def _leads(spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Whether no other trial has reached a better value yet; a tie still leads."""
    own = _peak(spec, measured)
    return own > -math.inf and all(own >= _peak(spec, rival) for rival in rivals)


def _peak(spec: StudySpec, record: TrialRecord) -> float:
    """Give the best value a feasible trial has shown, more is better; -inf for none."""
    objective, metrics = spec.objectives[0], final_metrics(record)
    if not is_feasible(spec, metrics):
        return -math.inf
    values = (finite(row, objective.metric) for row in (*record.curve.values(), metrics))
    return max((gain(objective, value) for value in values if value is not None), default=-math.inf)


def _rule_stops(spec: StudySpec, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    rivals = [replace(rival, curve=_finite_curve(spec, rival)) for rival in rivals]
    if isinstance(spec.early_stopping, HyperbandStopping):
        bracket = _bracket(spec, measured.number)
        rivals = [rival for rival in rivals if _bracket(spec, rival.number) == bracket]
    rungs = list(_rungs(spec, measured.number))
    passed = {record.id: _rungs_passed(spec, record, rungs) for record in rivals}
    # The last step's own rungs are what the pruner is asked about.
    earlier = {step: row for step, row in measured.curve.items() if step != measured.last_step}
    passed[measured.id] = _rungs_passed(spec, replace(measured, curve=earlier), rungs)
    source = MemorySource(spec, [*rivals, measured], system_attrs=passed)
    study = optuna.Study(study_name=spec.name, storage=_RungStorage(source))
    trial = next(trial for trial in source.trials if trial.number == measured.number)
    return _pruner(spec, measured.number).prune(study, trial)


def _pruner(spec: StudySpec, number: int) -> BasePruner:
    rule = spec.early_stopping
    match rule:
        case PercentileStopping() | MedianStopping():
            shared = {"n_startup_trials": rule.startup_trials, "n_warmup_steps": rule.min_epochs}
            if isinstance(rule, PercentileStopping):
                return PercentilePruner(rule.percentile, **shared)
            return MedianPruner(**shared)
        case AshaStopping() | HyperbandStopping():
            bracket = _bracket(spec, number)
            return SuccessiveHalvingPruner(rule.min_epochs, rule.reduction, min_early_stopping_rate=bracket)
        case ThresholdStopping():
            return ThresholdPruner(rule.lower, rule.upper, n_warmup_steps=rule.min_epochs)
        case PatientStopping():
            return _patient_pruner(rule.patience)
        case NoStopping():
            raise AssertionError("no rule, nothing to ask")


@cache
def _patient_pruner(patience: int) -> PatientPruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # since 2021
        return PatientPruner(None, patience)


# ---------------------------------------------------------------- successive halving


def _rungs(spec: StudySpec, number: int) -> Iterator[int]:
    """Give the steps of the rungs of a trial's bracket; none for rules without rungs."""
    rule = spec.early_stopping
    if isinstance(rule, AshaStopping | HyperbandStopping):
        step = rule.min_epochs * rule.reduction ** _bracket(spec, number)
        while step <= spec.task.epochs:
            yield step
            step *= rule.reduction


def _rungs_passed(spec: StudySpec, record: TrialRecord, rungs: Sequence[int]) -> dict[str, Any]:
    """Give the attributes that Optuna's pruner would have written for a trial with this curve."""
    metric = spec.objectives[0].metric
    found = {}
    for place, rung in enumerate(rungs):
        step = min((step for step in record.curve if step >= rung), default=None)
        if step is None:
            break
        found[f"completed_rung_{place}"] = record.curve[step][metric]
    return found


def _bracket(spec: StudySpec, number: int) -> int:
    """Give the bracket of a trial: 0 but for Hyperband.

    Hyperband shares trials out over its brackets in the ratio of Li et al. (2018), Algorithm 1, drawing from a
    checksum of study and number, as Optuna's `HyperbandPruner` does; each bracket is successive halving by itself.
    """
    rule = spec.early_stopping
    if not isinstance(rule, HyperbandStopping):
        return 0
    shares = _bracket_shares(rule.min_epochs, spec.task.epochs, rule.reduction)
    draw = binascii.crc32(f"{spec.name}_{number}".encode()) % sum(shares)
    for bracket, share in enumerate(shares):
        draw -= share
        if draw < 0:
            return bracket
    raise AssertionError("a draw is less than the sum of the shares")


@cache
def _bracket_shares(least: int, most: int, reduction: int) -> tuple[int, ...]:
    count = math.floor(math.log(most / least, reduction)) + 1
    return tuple(math.ceil(count * reduction**s / (s + 1)) for s in reversed(range(count)))


class _RungStorage(StudyStorage):
    """Takes the rungs that the pruner writes, and forgets them: they follow from the curves."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Accept the attributes of rungs, refuse all others."""
        if not key.startswith("completed_rung_"):
            super().set_trial_system_attr(trial_id, key, value)


def _finite_curve(spec: StudySpec, record: TrialRecord) -> Mapping[int, Mapping[str, float]]:
    """Leave out the steps whose objective is missing or not finite: a worker ends such a trial as diverged."""
    metric = spec.objectives[0].metric
    return {step: row for step, row in record.curve.items() if finite(row, metric) is not None}
