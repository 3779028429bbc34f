"""What the API answers with: studies, trials, curves, events, workers, tokens, health, problems.

The same classes write the answer in `api/` and read it in `hpo/client.py`. Fields that a newer server adds are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from .spec.study import StudySpec
from .trial import FailureKind, ParamValue, StudyState, TrialRecord, TrialState


class Resource(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Trial(Resource):
    """A trial without its curve."""

    id: int
    number: int
    """Position in the study, from 0 without gaps."""
    state: TrialState
    params: dict[str, ParamValue]
    metrics: dict[str, float] | None
    """Final values; null until the trial is over."""
    attempt: int
    epochs_done: int
    last_metrics: dict[str, float] | None
    """What the last epoch reported."""
    failure_kind: FailureKind | None
    failure_message: str | None
    generator: str | None
    """What proposed the configuration."""
    predicted_mean: float | None
    predicted_sd: float | None
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


class TrialPage(Resource):
    """Trials in the order of their numbers; `next_after` continues the list, null at its end."""

    trials: list[Trial]
    next_after: int | None


class Curve(Resource):
    """One metric of one trial over the epochs."""

    number: int
    state: TrialState
    steps: list[int]
    values: list[float]


class Curves(Resource):
    """One metric of every trial that has reported it."""

    metric: str
    curves: list[Curve]


class BestTrial(Resource):
    """The best feasible trial by the first objective, with its curve."""

    study: str
    metric: str
    direction: Literal["maximize", "minimize"]
    value: float
    feasible: bool
    """Whether it meets the outcome constraints of the spec; false only where no trial does."""
    trial: TrialDetail


class BestValue(Resource):
    """The best value so far, and whose it is."""

    number: int
    metric: str
    value: float


class StudySummary(Resource):
    """A study as it appears in a list."""

    name: str
    state: StudyState
    state_reason: str | None
    created_at: datetime
    finished_at: datetime | None
    gpu_hours: float
    """Device time spent so far."""
    trials: dict[TrialState, int]
    """How many trials are in each state; states without any are left out."""
    best: BestValue | None


class StudyDetail(StudySummary):
    """A study with its spec."""

    id: int
    revision: int
    """Grows by one with every change of the spec."""
    spec: StudySpec


class Event(Resource):
    """Something that happened: what, to which trial, by whom."""

    id: int
    trial: int | None
    """Number of the trial; null for events of the study."""
    kind: str
    actor: str
    detail: dict[str, Any]
    at: datetime


class EventPage(Resource):
    """Events, oldest first. `last_id` is what to give as `after` for the next page."""

    events: list[Event]
    last_id: int


class Worker(Resource):
    """A worker as it last introduced itself."""

    name: str
    host: str
    device: str
    gpu_name: str | None
    memory_bytes: int | None
    version: str
    last_seen: datetime
    alive: bool
    """Whether it was seen within the last minute."""


class Token(Resource):
    """An API token; its text is never shown again."""

    id: int
    name: str
    scopes: list[str]
    created_at: datetime | None
    expires_at: datetime | None


class NewToken(BaseModel):
    """What a new token may do: `admin` everything, `worker` run trials and read, `read` look."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w .:@/()-]+$")]
    scopes: Annotated[list[Literal["admin", "worker", "read"]], Field(min_length=1)]
    expires_in_hours: Annotated[float, Field(gt=0, le=24 * 3650)] | None = None


class CreatedToken(Resource):
    """A token's text, this one time."""

    name: str
    token: str


class LoginLink(Resource):
    """A path that logs a browser in once."""

    path: str
    expires_in_seconds: float


class Health(Resource):
    """Whether the service can do its work. Names and secrets stay out of it: it is open to everybody."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    database: Literal["ok", "unreachable"]
    optimizer: Literal["ok", "idle", "missing", "unknown"]
    """`idle`: no study is active; `missing`: an active study has no optimizer, claims get quasi-random trials."""
    active_studies: int | None = None
    running_trials: int | None = None
    live_workers: int | None = None


class FieldProblem(Resource):
    """One wrong field: its path (`space.lr.low`) and what would be right."""

    path: str
    message: str


class Problem(Resource):
    """Problem details (RFC 9457); `errors` is there for a body or a spec with wrong fields."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] | None = None


def trial_detail(record: TrialRecord) -> TrialDetail:
    """Take over a record with its curve."""
    curve = {step: dict(metrics) for step, metrics in sorted(record.curve.items())}
    return TrialDetail.model_validate({**_fields(record), "curve": curve})


def _fields(record: TrialRecord) -> Mapping[str, Any]:
    last = record.last_step
    return {
        **{name: getattr(record, name) for name in Trial.model_fields if name != "last_metrics"},
        "params": dict(record.params),
        "metrics": None if record.metrics is None else dict(record.metrics),
        "last_metrics": None if last is None else dict(record.curve[last]),
    }
