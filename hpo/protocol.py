"""What workers and the API say to each other: the bodies of the lease, report, finish and release calls.

A worker speaks HTTP only. It chooses the `lease_id` (a UUID), so a claim whose reply was lost is sent again and finds
its own trial; (trial, attempt, lease_id) is the fence that every later call carries.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .spec.tasks import AnyTask
from .trial import Decision, FailureKind, ParamValue

FiniteMetrics = dict[str, Annotated[float, Field(allow_inf_nan=False)]]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Bytes = Annotated[int, Field(gt=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_MAX_DEPTH: Final = 100
"""Levels of lists and objects in a message: more than any has, and fewer than the stack of every Python can hold."""


class Message(BaseModel):
    """Base of all messages: unknown fields are errors.

    A traceback or a host name may hold anything; characters that Postgres cannot store become a question mark.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return _storable(value)


class WorkerInfo(Message):
    """Who is asking. `memory_bytes` is that of the GPU (of the machine for a CPU worker)."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    host: str
    pid: Annotated[int, Field(ge=0, le=2**31 - 1)]
    device: str
    """Such as `cpu` or `cuda:0`."""
    gpu_name: str | None = None
    memory_bytes: Bytes | None = None
    version: str = ""


class ClaimRequest(Message):
    """`POST /v1/leases`: ask for a trial; `study` limits the claim to one study."""

    worker: WorkerInfo
    lease_id: UUID
    study: str | None = None


class Lease(Message):
    """A trial to run, with everything needed to run it. `config` is the complete flat configuration."""

    study: str
    study_id: int
    trial_id: int
    number: int
    attempt: int
    lease_id: UUID
    params: dict[str, ParamValue]
    config: dict[str, Any]
    task: AnyTask
    checkpoint: str | None
    """Path of the checkpoint to continue from, None for a fresh start."""
    epochs_done: int
    lease_seconds: float
    heartbeat_seconds: float


class Fence(Message):
    """Proof of ownership, part of every call about a claimed trial."""

    attempt: Annotated[int, Field(ge=0, le=2**31 - 1)]
    lease_id: UUID


class Measurement(Message):
    """The metrics after `step` epochs (from 1). A non-finite metric is not a measurement: finish as diverged."""

    step: Count
    metrics: FiniteMetrics
    wall_seconds: Seconds
    gpu_seconds: Seconds
    """Device time of this epoch alone; wall time on a CPU."""


class ReportRequest(Fence):
    """`POST /v1/trials/{id}/reports`: heartbeat, measurements (maybe none) and the newest checkpoint in one call."""

    measurements: list[Measurement] = Field(default_factory=list)
    checkpoint: str | None = None
    peak_memory_bytes: Bytes | None = None


class ReportReply(Message):
    """What to do next."""

    decision: Decision


class FinishRequest(Fence):
    """`POST /v1/trials/{id}/finish`: the trial is over. `metrics` are the final values unless it failed."""

    outcome: Literal["completed", "stopped", "failed"]
    metrics: FiniteMetrics = Field(default_factory=dict)
    failure_kind: FailureKind | None = None
    failure_message: Annotated[str, Field(max_length=20_000)] | None = None
    """One sentence first; a traceback, if any, after it."""
    checkpoint: str | None = None
    dataset_version: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    """Versions, device and thread count: what the export needs to repeat the run."""
    peak_memory_bytes: Bytes | None = None

    @field_validator("environment")
    @classmethod
    def _environment_is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {key: _finite(inner) for key, inner in value.items()}

    @model_validator(mode="after")
    def _failure_has_a_kind(self) -> Self:
        if (self.outcome == "failed") != (self.failure_kind is not None):
            raise ValueError("`failure_kind` belongs to the outcome `failed`, and to it alone")
        return self


class ReleaseRequest(Fence):
    """`POST /v1/trials/{id}/release`: give the trial back unfinished.

    `drained` (SIGTERM, preemption) and `paused` (the study was paused) cost no retry; `crashed` does.
    """

    reason: Literal["drained", "paused", "crashed"]
    message: str | None = None
    checkpoint: str | None = None


def _storable(value: Any, depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("the body is nested too deeply")
    if isinstance(value, str):
        return value.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_storable(key): _storable(inner, depth + 1) for key, inner in value.items()}
    return [_storable(inner, depth + 1) for inner in value] if isinstance(value, list) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value
