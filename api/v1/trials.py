"""Trials and their learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from hpo.protocol import Message
from hpo.spec import flatten
from hpo.store import lifecycle, studies, trials
from hpo.trial import FailureKind, ParamValue, TrialRecord, TrialState

from ..auth.scopes import BEARER, Admin, Reader
from ..problems import responses
from ..state import State
from .names import StudyName, TrialId, TrialNumber

Value = Annotated[Any, WithJsonSchema({"anyOf": [{"type": t} for t in ("boolean", "integer", "number", "string")]})]
"""A value of a parameter. The space says in one sentence which it takes; four types would say it in four."""

router = APIRouter(prefix="/v1", tags=["trials"], dependencies=[Depends(BEARER)])


class Trial(BaseModel):
    """A trial without its curve."""

    id: int
    number: int
    """Position in the study, from 0 without gaps."""
    state: TrialState
    params: dict[str, ParamValue]
    metrics: dict[str, float] | None
    """Final values; null until the trial is over."""
    attempt: int
    """How often it was handed out."""
    epochs_done: int
    last_metrics: dict[str, float] | None
    """What the last epoch reported."""
    failure_kind: FailureKind | None
    failure_message: str | None
    generator: str | None
    """What proposed the configuration."""
    predicted_mean: float | None
    predicted_sd: float | None
    predicted_feasibility: float | None
    """How probably the constraints hold; null without constraints, or without a model."""
    worker: str | None
    gpu_seconds: float
    peak_memory_bytes: int | None
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, record: TrialRecord) -> Self:
        """Take over what the store knows."""
        return cls.model_validate(_fields(record))


class TrialDetail(Trial):
    """A trial with its learning curve: epochs done, from 1, to the metrics reported there."""

    curve: dict[int, dict[str, float]]

    @classmethod
    def of(cls, record: TrialRecord) -> Self:
        """Take over what the store knows."""
        curve = {step: dict(metrics) for step, metrics in sorted(record.curve.items())}
        return cls.model_validate({**_fields(record), "curve": curve})


class TrialPage(BaseModel):
    """Trials in the order of their numbers."""

    trials: list[Trial]
    next_after: int | None
    """What to give as `after` for the next page; null on the last one."""


class EnqueueRequest(Message):
    """Configurations that a person wants to be tried: values of all parameters, or of some."""

    guesses: Annotated[list[dict[str, Value]], Field(min_length=1, max_length=1000)]

    model_config = ConfigDict(json_schema_extra={"examples": [{"guesses": [{"lr": 0.01, "model": "r2plus1d_18"}]}]})

    @field_validator("guesses", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        # As in a spec: {"clip": {"stride": 2}} means clip.stride.
        return (
            [flatten(guess) if isinstance(guess, dict) else guess for guess in value]
            if isinstance(value, list)
            else value
        )


class Enqueued(BaseModel):
    """What became of the guesses."""

    added: int
    """How many were not asked for before."""
    waiting: int
    """How many guesses of the study, these included, have not become trials yet."""


class Curve(BaseModel):
    """One metric of one trial over the epochs."""

    number: int
    state: TrialState
    steps: list[int]
    values: list[float]


class Curves(BaseModel):
    """One metric of every trial that has reported it."""

    metric: str
    curves: list[Curve]


@router.get("/studies/{name}/trials", responses=responses(404), operation_id="list_trials")
def list_trials(
    state: State,
    _: Reader,
    name: StudyName,
    only: Annotated[list[TrialState] | None, Query(alias="state", description="Only trials in these states.")] = None,
    after: Annotated[int, Query(ge=-1, le=2**31, description="Only trials with a greater number.")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
) -> TrialPage:
    """List the trials of a study by number, without their curves."""
    with state.database.transaction() as connection:
        records = trials.records(connection, studies.get(connection, name).id)
    wanted = [r for r in records if r.number > after and (not only or r.state in only)]
    page = wanted[:limit]
    more = len(wanted) > limit
    return TrialPage(trials=[Trial.of(record) for record in page], next_after=page[-1].number if more else None)


@router.get("/studies/{name}/trials/{number}", responses=responses(404), operation_id="get_trial_of_study")
def get_trial_of_study(state: State, _: Reader, name: StudyName, number: TrialNumber) -> TrialDetail:
    """Show one trial with its curve."""
    with state.database.transaction() as connection:
        return TrialDetail.of(trials.get(connection, studies.get(connection, name).id, number))


@router.post(
    "/studies/{name}/trials",
    status_code=202,
    responses=responses(404, 409),
    operation_id="enqueue_trials",
)
def enqueue_trials(state: State, who: Admin, name: StudyName, request: EnqueueRequest) -> Enqueued:
    """Ask for configurations to be tried next; what was asked for before is not repeated."""
    with state.database.transaction() as connection:
        added = studies.enqueue(connection, name, request.guesses, actor=who.name)
        return Enqueued(added=added, waiting=len(studies.get(connection, name).waiting_guesses))


@router.post(
    "/studies/{name}/trials/{number}/cancel",
    status_code=202,
    responses=responses(404, 409),
    operation_id="cancel_trial",
)
def cancel_trial(state: State, who: Admin, name: StudyName, number: TrialNumber) -> Trial:
    """Cancel a trial: its worker sees it at the next heartbeat and drops it."""
    with state.database.transaction() as connection:
        record = trials.get(connection, studies.get(connection, name).id, number)
        lifecycle.cancel(connection, record.id, actor=who.name)
        return Trial.of(trials.record(connection, record.id))


@router.get("/trials/{trial_id}", responses=responses(404), operation_id="get_trial")
def get_trial(state: State, _: Reader, trial_id: TrialId) -> TrialDetail:
    """Show one trial by its id."""
    with state.database.transaction() as connection:
        return TrialDetail.of(trials.record(connection, trial_id))


@router.get("/studies/{name}/curves", responses=responses(404), operation_id="list_curves")
def list_curves(
    state: State,
    _: Reader,
    name: StudyName,
    metric: Annotated[str | None, Query(description="The first objective, if none is given.", max_length=100)] = None,
) -> Curves:
    """Return one metric of every trial over the epochs."""
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
        records = trials.records(connection, study.id)
    chosen = metric or study.spec.objectives[0].metric
    curves = []
    for record in records:
        points = [(step, metrics[chosen]) for step, metrics in sorted(record.curve.items()) if chosen in metrics]
        if points:
            steps, values = zip(*points, strict=True)
            curves.append(Curve(number=record.number, state=record.state, steps=list(steps), values=list(values)))
    return Curves(metric=chosen, curves=curves)


def _fields(record: TrialRecord) -> Mapping[str, Any]:
    last = record.last_step
    return {
        **{name: getattr(record, name) for name in Trial.model_fields if name != "last_metrics"},
        "params": dict(record.params),
        "metrics": None if record.metrics is None else dict(record.metrics),
        "last_metrics": None if last is None else dict(record.curve[last]),
    }
