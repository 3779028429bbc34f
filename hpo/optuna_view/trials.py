"""Our trials in Optuna's words: distributions of a space and frozen trials of records.

Used wherever Optuna reads our data: the storage of the dashboard, and the samplers. Optuna's
states for ours: suggested and paused are WAITING, running is RUNNING, completed is COMPLETE, stopped is PRUNED with
its last value, failed and withdrawn are FAIL, as is whatever has no finite outcome (a NaN value breaks the dashboard).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from ..activity import progress_line, stored_progress
from ..results.outcome import final_metrics, finite, objective_values, violations
from ..spec import AnyParameter, FloatParameter, IntParameter, StudySpec
from ..trial import TrialRecord, TrialState

CONSTRAINTS_KEY: Final = "constraints"
"""System attribute with one violation per constraint, the only form that optuna-dashboard 0.21 reads."""

_STATES: Final[Mapping[TrialState, OptunaState]] = {
    TrialState.SUGGESTED: OptunaState.WAITING,
    TrialState.PAUSED: OptunaState.WAITING,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETED: OptunaState.COMPLETE,
    TrialState.STOPPED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.WITHDRAWN: OptunaState.FAIL,
}
_UNKNOWN_VIOLATION: Final = 1e9
"""Stands for the violation of a constraint whose metric is missing: JSON has no infinity."""

Distributions = Mapping[str, BaseDistribution]


def directions(spec: StudySpec) -> list[StudyDirection]:
    """Return the direction of every objective."""
    return [StudyDirection[objective.direction.upper()] for objective in spec.objectives]


def distribution(parameter: AnyParameter) -> BaseDistribution:
    """Translate a search parameter; ordinals become categorical, which is all that Optuna has for them."""
    if isinstance(parameter, FloatParameter):
        high = parameter.high if parameter.step is None else last_grid_value(parameter)
        return FloatDistribution(parameter.low, high, log=parameter.log, step=parameter.step)
    if isinstance(parameter, IntParameter):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return CategoricalDistribution(parameter.choices)


def distributions(spec: StudySpec) -> dict[str, BaseDistribution]:
    """Translate the whole space."""
    return {key: distribution(parameter) for key, parameter in spec.space.items()}


def last_grid_value(parameter: FloatParameter) -> float:
    """Return the last value that a stepped range reaches: Optuna warns where `high` is not on the grid."""
    low, high, step = (Decimal(str(value)) for value in (parameter.low, parameter.high, parameter.step))
    return float(low + (high - low) // step * step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a trial, with the names of a `FrozenTrial`, which takes ten times as long to make."""

    number: int
    state: OptunaState
    values: Sequence[float] | None
    system_attrs: Mapping[str, Any]


def outcome(spec: StudySpec, record: TrialRecord) -> Outcome:
    """Return what came of a trial; its curve is not needed where no metric is a mean over the last epochs."""
    state, values = _outcome(spec, record)
    return Outcome(number=record.number, state=state, values=values, system_attrs=_constraints(spec, record))


def frozen_trial(spec: StudySpec, record: TrialRecord, known: Distributions) -> FrozenTrial:
    """Translate one record; `known` are the distributions of the spec, made once per study."""
    state, values = _outcome(spec, record)
    params = {key: value for key, value in record.params.items() if key in known and spec.space[key].contains(value)}
    attributes = _constraints(spec, record)
    if state is OptunaState.WAITING:
        attributes["fixed_params"] = params
    started = record.started_at or record.created_at
    return FrozenTrial(
        number=record.number,
        state=state,
        value=None,
        values=values,
        datetime_start=None if state is OptunaState.WAITING else _local(started or _EPOCH),
        datetime_complete=_local(record.finished_at or started or _EPOCH) if state.is_finished() else None,
        params=params,
        distributions={key: known[key] for key in params},
        user_attrs=_user_attrs(record),
        system_attrs=attributes,
        intermediate_values=intermediate_values(spec, record),
        trial_id=record.id,
    )


def intermediate_values(spec: StudySpec, record: TrialRecord) -> dict[int, float]:
    """Return the curve of the first objective, in the order of the steps, without what is not finite."""
    metric = spec.objectives[0].metric
    found = {step: finite(record.curve[step], metric) for step in sorted(record.curve)}
    return {step: value for step, value in found.items() if value is not None}


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _outcome(spec: StudySpec, record: TrialRecord) -> tuple[OptunaState, list[float] | None]:
    state = _STATES[record.state]
    if state not in (OptunaState.COMPLETE, OptunaState.PRUNED):
        return state, None
    values = objective_values(spec, final_metrics(record))
    if values is None:
        # A trial stopped before its first measurement is still a stopped one; a completed one without a value is not.
        return (OptunaState.FAIL if state is OptunaState.COMPLETE else state), None
    return state, list(values)


def _constraints(spec: StudySpec, record: TrialRecord) -> dict[str, Any]:
    metrics = final_metrics(record)
    if not (spec.constraints and metrics):
        return {}
    found = violations(spec, metrics)
    return {CONSTRAINTS_KEY: [one if math.isfinite(one) else _UNKNOWN_VIOLATION for one in found]}


def _local(moment: datetime) -> datetime:
    """Optuna's times are naive and local."""
    return moment.astimezone().replace(tzinfo=None) if moment.tzinfo else moment


def _user_attrs(record: TrialRecord) -> dict[str, Any]:
    """The columns that the dashboard shows beside the parameters; only what is known."""
    progress = stored_progress(record.progress)
    found: dict[str, Any] = {
        "state": record.state.value,
        "epoch": record.epochs_done or record.last_step or 0,
        "progress": None if progress is None else progress_line(progress),
        "attempt": record.attempt,
        "gpu_hours": round(record.gpu_seconds / 3600, 4),
        "peak_memory_gib": None if record.peak_memory_bytes is None else round(record.peak_memory_bytes / 2**30, 3),
        "worker": record.worker,
        "generator": record.generator,
        "replicate_of": record.replicate_of,
        "predicted_mean": record.predicted_mean,
        "predicted_sd": record.predicted_sd,
        "predicted_feasibility": record.predicted_feasibility,
        "failure_kind": None if record.failure_kind is None else record.failure_kind.value,
        "failure_message": record.failure_message,
    }
    finals = {name: value for name, value in final_metrics(record).items() if math.isfinite(value)}
    return {key: value for key, value in found.items() if value is not None} | finals
