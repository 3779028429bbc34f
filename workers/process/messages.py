"""What a worker and its training process say to each other: JSON, one message a line.

The job and then commands go to the child's stdin; events come back over a pipe of their own, so that nothing a
library prints can corrupt them. A closed stdin means that the worker is gone, and the child ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from hpo.protocol import Measurement, Message
from hpo.spec.study import TaskConfig
from hpo.trial import FailureKind


class Job(Message):
    """A trial to train: the first line that a child reads."""

    config: dict[str, Any]
    """Flat training configuration, not checked yet: a wrong one is a failed trial."""
    task: TaskConfig
    stop_after: int | None = None
    """End after this many epochs of the plan: a trial that was stopped early, trained again."""
    folder: Path
    """Where its checkpoints go."""
    attempt: int
    resume: bool
    """Go on from the newest checkpoint; else start afresh and clear the folder."""
    checkpoint: str | None = None
    """The checkpoint that the API knows of, maybe in another folder."""
    epochs_reported: int = 0
    cache_dir: Path
    device: Literal["cpu", "cuda"]
    threads: int
    bf16: bool = False
    deterministic: bool = False


class Command(Message):
    """What the child does next; `carry_on` answers the report of epoch `epoch`."""

    action: Literal["carry_on", "stop", "pause", "drain"]
    epoch: int = 0


class Note(Message):
    """Something a person may want to read."""

    kind: Literal["note"] = "note"
    text: str
    warning: bool = False


class Started(Message):
    """Training begins, at `epoch` epochs and `batch` batches done."""

    kind: Literal["started"] = "started"
    epoch: int
    batch: int
    epochs: int
    checkpoint: str | None
    measurements: list[Measurement]
    """Epochs that stand in the checkpoint but were never reported."""


class EpochDone(Message):
    """An epoch is over and its checkpoint is on disk."""

    kind: Literal["epoch"] = "epoch"
    measurement: Measurement
    checkpoint: str
    peak_memory_bytes: int


class _End(Message):
    """What every last message carries."""

    dataset_version: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None


class Finished(_End):
    """The trial has its result. `metrics` are those of its last whole epoch."""

    kind: Literal["finished"] = "finished"
    outcome: Literal["completed", "stopped"]
    metrics: dict[str, float]
    checkpoint: str | None
    """The final weights; None if the trial was stopped within its first epoch."""


class Failed(_End):
    """The trial cannot have a result."""

    kind: Literal["failed"] = "failed"
    failure_kind: FailureKind
    message: str


class Interrupted(_End):
    """The trial was told to pause or drain, and its checkpoint is on disk."""

    kind: Literal["interrupted"] = "interrupted"
    checkpoint: str


class WorkerFault(_End):
    """This machine, not the configuration, made the trial end."""

    kind: Literal["broken"] = "broken"
    message: str


LastEvent = Finished | Failed | Interrupted | WorkerFault
Event = Annotated[Note | Started | EpochDone | LastEvent, Field(discriminator="kind")]
EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
