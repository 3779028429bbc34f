"""The workers that have been heard of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Final, Self

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpo.activity import stored_progress
from hpo.protocol import Message, Progress
from hpo.store import quarantine, waiting, workers
from hpo.trial import Fault

from ..auth.scopes import BEARER, Admin, Reader
from ..problems import responses
from ..state import State

_MADE: Final = ("alive", "progress", "missing_files")
"""Fields of a worker that are not columns of it."""
router = APIRouter(prefix="/v1/workers", tags=["workers"], dependencies=[Depends(BEARER)])


class MissingFiles(BaseModel):
    """A study that a worker gets no trials of, because it has not found its data set or weights."""

    study: str
    message: str
    """What it has not found."""
    until: datetime
    """When it may try again. It may before if it is started again, or released."""


class Worker(BaseModel):
    """A worker as it last introduced itself."""

    name: str
    host: str
    pid: int
    device: str
    gpu_name: str | None
    memory_bytes: int | None
    version: str
    study: str | None
    """The one study that it asks for; null when it takes any."""
    task_kinds: list[str]
    """The kinds of task whose trials it runs: `video` and `image`, or `custom` for a function of the user's own."""
    gpus: int
    """How many a trial may have there, on each machine; `memory_bytes` is that of one."""
    nodes: int
    """Machines of the group that it leads; 1 where it is alone."""
    first_seen: datetime
    last_seen: datetime
    seconds_since_seen: float
    """By the clock of the database."""
    alive: bool
    """Whether it was heard of within the last minute."""
    trial_id: int | None
    """The trial that it runs, which is number `trial_number` of the study `trial_study`."""
    trial_study: str | None
    trial_number: int | None
    progress: Progress | None
    """How far that trial is, as the worker last said; null before it does."""
    progress_at: datetime | None
    faults: int
    """How often its machine has failed since it last trained an epoch."""
    fault: Fault | None
    """What failed last."""
    fault_message: str | None
    faulted_at: datetime | None
    quarantined_at: datetime | None
    """Since when it gets no trials because of its faults; null if it gets some."""
    quarantined_until: datetime | None
    """When it may try one."""
    host_fault: Fault | None
    """What several workers of its host failed in, so that none of its workers gets trials; null if they do."""
    host_fault_message: str | None
    host_quarantined_at: datetime | None
    host_quarantined_until: datetime | None
    """When one of them may try a trial."""
    missing_files: list[MissingFiles]
    """Studies that it gets no trials of; it has those of others."""

    @classmethod
    def of(cls, row: workers.WorkerRow, missing: Sequence[waiting.MissingFiles]) -> Self:
        """Take over what the store knows."""
        return cls(
            **{name: getattr(row, name) for name in cls.model_fields if name not in _MADE},
            alive=row.seconds_since_seen <= workers.ALIVE_SECONDS,
            progress=stored_progress(row.progress),
            missing_files=[MissingFiles(**asdict(found)) for found in missing],
        )


class WorkerRelease(Message):
    """The worker that is to have trials again, or the host whose workers are."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    host: Annotated[str, Field(max_length=1000)] | None = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "gpu-host-7:GPU-5c3d8a2f"}, {"host": "gpu-host-7"}]}
    )

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.name is None) == (self.host is None):
            raise ValueError("give either the `name` of a worker or a `host`")
        return self


@router.get("", responses=responses(), operation_id="list_workers")
def list_workers(state: State, _: Reader) -> list[Worker]:
    """List all workers, the latest heard of first."""
    with state.database.transaction() as connection:
        missing = waiting.missing_files(connection)
        return [Worker.of(row, missing.get(row.name, ())) for row in workers.list_all(connection)]


@router.post("/release", status_code=204, responses=responses(404), operation_id="release_worker")
def release_worker(state: State, who: Admin, request: WorkerRelease) -> None:
    """Let a worker, or all workers of a host, have trials again: the machine was repaired.

    This ends their quarantine, and they may try studies again whose files they missed.
    """
    with state.database.transaction() as connection:
        if request.host is not None:
            quarantine.release_host(connection, request.host, actor=who.name)
        elif request.name is not None:
            quarantine.release(connection, request.name, actor=who.name)
