"""The messages between a worker and its training process: JSON, one message a line.

The job and then commands go to the child's stdin; events come back over a pipe of their own, so that nothing that a
library prints can corrupt them. When its stdin closes, the worker has ended, and the child ends too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from hpo.protocol import Measurement, Message
from hpo.spec import AnyTask
from hpo.trial import FailureKind


class Job(Message):
    """A trial to train: the first line that a child reads."""

    config: dict[str, Any]
    """Flat training configuration, not checked yet: a wrong one makes the trial fail."""
    task: AnyTask
    stop_after: int | None = None
    """End after this number of the planned epochs: to train a trial again that was stopped early."""
    folder: Path
    """Where its checkpoints go."""
    attempt: int
    resume: bool
    """Resume from the newest usable checkpoint; if false, clear the folder and start from the beginning."""
    checkpoint: str | None = None
    """The newest checkpoint that the API knows of; it may lie in another folder."""
    epochs_reported: int = 0
    """Epochs that the API has the measurements of."""
    cache_dir: Path
    device: Literal["cpu", "cuda"]
    threads: int
    bf16: bool = False
    deterministic: bool = False


class Command(Message):
    """What the child does next. `continue` is the answer to the report of `epoch`; the others end the training."""

    action: Literal["continue", "stop", "pause", "drain"]
    epoch: int = 0


class Note(Message):
    """Something a person may want to read."""

    kind: Literal["note"] = "note"
    text: str
    warning: bool = False


class Started(Message):
    """Training begins, after `epoch` whole epochs and `batch` batches of the next one."""

    kind: Literal["started"] = "started"
    epoch: int
    batch: int
    epochs: int
    checkpoint: str | None
    measurements: list[Measurement]
    """Epochs that are in the checkpoint but were never reported."""


class EpochDone(Message):
    """An epoch is over and its checkpoint is on disk."""

    kind: Literal["epoch"] = "epoch"
    measurement: Measurement
    checkpoint: str
    peak_memory_bytes: int


class _LastEvent(Message):
    """What every last event carries."""

    dataset_version: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None


class Finished(_LastEvent):
    """The trial has its result. `metrics` are those of its last whole epoch."""

    kind: Literal["finished"] = "finished"
    outcome: Literal["completed", "stopped"]
    metrics: dict[str, float]
    checkpoint: str | None
    """The final weights; None if the trial was stopped within its first epoch."""


class Failed(_LastEvent):
    """The trial failed and has no result."""

    kind: Literal["failed"] = "failed"
    failure_kind: FailureKind
    message: str


class Interrupted(_LastEvent):
    """The trial was asked to pause or drain, and its checkpoint is on disk."""

    kind: Literal["interrupted"] = "interrupted"
    checkpoint: str


class WorkerFault(_LastEvent):
    """The trial ended through a fault of this machine, not of its configuration."""

    kind: Literal["worker_fault"] = "worker_fault"
    message: str


LastEvent = Finished | Failed | Interrupted | WorkerFault
Event = Annotated[Note | Started | EpochDone | LastEvent, Field(discriminator="kind")]
EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
