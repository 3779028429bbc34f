"""Trials and their learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from hpo.activity import origin_sentence, stored_progress
from hpo.protocol import Confusion, LoadedWeights, Message, Progress
from hpo.spec import flatten
from hpo.store import confusions, finalists, lifecycle, studies, trials, waiting
from hpo.trial import FailureKind, ParamValue, TrialRecord, TrialState

from ..auth.scopes import BEARER, Admin, Reader
from ..names import StudyName, TrialId, TrialNumber
from ..problems import responses
from ..state import State

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
    origin: str | None
    """Where a result from elsewhere was measured; null for trials of the study."""
    replicate_of: int | None
    """The first trial of its configuration, where it trains that again with another seed."""
    predicted_mean: float | None
    predicted_sd: float | None
    predicted_feasibility: float | None
    """How probably the constraints hold; null without constraints, or without a model."""
    worker: str | None
    lost_on: tuple[str, ...]
    """The worker of each attempt that crashed or of which nothing was heard any more."""
    dataset_version: str | None
    """The version of the data that it was trained on: values of trials on different ones are not comparable."""
    gpu_seconds: float
    """Device time of the epochs that were measured."""
    peak_memory_bytes: int | None
    progress: Progress | None
    """How far a running trial is, as its worker last said at `progress_at`; null before it does."""
    progress_at: datetime | None
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
    weights: list[LoadedWeights]
    """What its training started from; empty for one from scratch."""
    waits_for: str | None
    """What memory it waits for, as a sentence; null where it does not."""

    @classmethod
    def of(cls, record: TrialRecord, waits_for: str | None = None) -> Self:
        """Take over what the store knows."""
        curve = {step: dict(metrics) for step, metrics in sorted(record.curve.items())}
        more = {"curve": curve, "weights": record.weights, "waits_for": waits_for}
        return cls.model_validate({**_fields(record), **more})


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


@router.get("/studies/{name}/trials", response_model=TrialPage, responses=responses(404), operation_id="list_trials")
def list_trials(
    state: State,
    _: Reader,
    name: StudyName,
    only: Annotated[list[TrialState] | None, Query(alias="state", description="Only trials in these states.")] = None,
    after: Annotated[int, Query(ge=-1, le=2**31, description="Only trials with a greater number.")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
) -> Response:
    """List the trials of a study by number, without their curves."""
    with state.database.transaction() as connection:
        study_id = studies.id_of(connection, name)
        found = trials.page(connection, study_id, after=after, states=only, limit=limit + 1)
    page = [Trial.of(record) for record in found[:limit]]
    return written(TrialPage(trials=page, next_after=page[-1].number if len(found) > limit else None))


@router.get("/studies/{name}/trials/{number}", responses=responses(404), operation_id="get_trial_of_study")
def get_trial_of_study(state: State, _: Reader, name: StudyName, number: TrialNumber) -> TrialDetail:
    """Show one trial with its curve."""
    with state.database.transaction() as connection:
        record = trials.get(connection, studies.get(connection, name).id, number)
        return TrialDetail.of(record, waiting.reason(connection, record.id))


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
    "/studies/{name}/trials/{number}/replicate",
    status_code=201,
    responses=responses(404, 409),
    operation_id="replicate_trial",
)
def replicate_trial(state: State, who: Admin, name: StudyName, number: TrialNumber) -> Trial:
    """Have the configuration of a trial trained again with another seed, as a trial of its own; each call adds one."""
    with state.database.transaction() as connection:
        return Trial.of(finalists.train_again(connection, name, number, actor=who.name))


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


@router.delete("/studies/{name}/trials/{number}", responses=responses(404, 409), operation_id="delete_trial")
def delete_trial(state: State, who: Admin, name: StudyName, number: TrialNumber) -> Trial:
    """Take a trial that has ended out of its study: its result counts for nothing any more. Its number stays."""
    with state.database.transaction() as connection:
        record = trials.get(connection, studies.id_of(connection, name), number)
        return Trial.of(lifecycle.discard(connection, record.id, actor=who.name))


@router.get("/trials/{trial_id}", responses=responses(404), operation_id="get_trial")
def get_trial(state: State, _: Reader, trial_id: TrialId) -> TrialDetail:
    """Show one trial by its id."""
    with state.database.transaction() as connection:
        return TrialDetail.of(trials.record(connection, trial_id), waiting.reason(connection, trial_id))


@router.get(
    "/studies/{name}/trials/{number}/confusion",
    response_model=Confusion,
    responses=responses(404),
    operation_id="get_confusion",
)
def get_confusion(state: State, _: Reader, name: StudyName, number: TrialNumber) -> Response:
    """Show how the newest validation of a trial classified its videos."""
    with state.database.transaction() as connection:
        record = trials.get(connection, studies.id_of(connection, name), number)
        return written(confusions.read(connection, record))


@router.get("/studies/{name}/curves", response_model=Curves, responses=responses(404), operation_id="list_curves")
def list_curves(
    state: State,
    _: Reader,
    name: StudyName,
    metric: Annotated[str | None, Query(description="The first objective, if none is given.", max_length=100)] = None,
    points: Annotated[
        int | None, Query(ge=2, le=100_000, description="About how many epochs of each trial to return.")
    ] = None,
) -> Response:
    """Return one metric of every trial over the epochs, of all epochs or of some that are evenly spread."""
    with state.database.transaction() as connection:
        study_id = studies.id_of(connection, name)
        spec = studies.outline_of(connection, study_id).spec
        chosen = metric or spec.objectives[0].metric
        every = 1 if points is None else -(-spec.task.epochs // points)
        found = trials.metric_curves(connection, study_id, chosen, every=every)
    return written(Curves(metric=chosen, curves=[_curve(curve) for curve in found]))


def _curve(found: trials.MetricCurve) -> Curve:
    # Without checking each of a hundred thousand numbers that the store keeps as numbers.
    return Curve.model_construct(number=found.number, state=found.state, steps=found.steps, values=found.values)


def written(body: BaseModel) -> Response:
    """Return a body that is long: what was checked when it was made is not checked again when it is written."""
    return Response(body.model_dump_json(), media_type="application/json")


def _fields(record: TrialRecord) -> Mapping[str, Any]:
    last = record.last_step
    return {
        **{name: getattr(record, name) for name in Trial.model_fields if name != "last_metrics"},
        "params": dict(record.params),
        "origin": None if record.origin is None else origin_sentence(record.origin),
        "progress": stored_progress(record.progress),
        "metrics": None if record.metrics is None else dict(record.metrics),
        "last_metrics": None if last is None else dict(record.curve[last]),
    }
