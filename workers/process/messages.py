"""The messages between a worker and its training process: JSON, one message a line.

The job and then commands go to the child's stdin; events come back over a pipe of their own, so that nothing that a
library prints can corrupt them. When its stdin closes, the worker has ended, and the child ends too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from hpo.protocol import Confusion, LoadedWeights, Measurement, Message
from hpo.spec import AnyTask
from hpo.spec.checkpoints import CheckpointPolicy
from hpo.trial import FailureKind, Fault

from ..training.progress import TrainingProgress
from .channel import Line


class Job(Message):
    """A trial to train: the first line that a child reads."""

    config: dict[str, Any]
    """Flat training configuration, not checked yet: a wrong one makes the trial fail."""
    task: AnyTask
    study: str = ""
    """The name of the study, for a function of a person's own, and the number of the trial in it."""
    number: int = 0
    seed_is_searched: bool = False
    """Whether `seed` is a parameter of the space."""
    stop_after: int | None = None
    """End after this number of the planned epochs: to train a trial again that was stopped early."""
    folder: Path
    """Where its checkpoints go."""
    refit: bool = False
    """Whether the validation videos train as well."""
    attempt: int
    run: str = ""
    """The run in the names of its checkpoints."""
    resume: bool
    """Resume from the newest usable checkpoint; if false, start from the beginning."""
    checkpoint: str | None = None
    """The newest checkpoint that the API knows of; it may lie in another folder, or be one of another run."""
    checkpoint_roots: list[Path] | None = None
    """Folders of checkpoints, one of which has `checkpoint`; None: it is where it says, since a person named it."""
    data_roots: list[Path] | None = None
    """Folders that the data set may be in; None for any."""
    remote_roots: list[str] = Field(default_factory=list)
    """Addresses that the data set may be at."""
    for_others: bool = False
    """Whether others read what it reports: what files hold is left out of messages then."""
    epochs_reported: int = 0
    """Epochs that the API has the measurements of."""
    cache_dir: Path
    weights_roots: list[Path] = Field(default_factory=list)
    """Folders of weights files."""
    weights: dict[str, str] = Field(default_factory=dict)
    """SHA-256 that weights files must have, by their source."""
    device: Literal["cpu", "cuda"]
    threads: int
    bf16: bool = False
    fp16: bool = False
    deterministic: bool = False
    memory_share: float = 1.0
    """The part of the GPU's memory that the child may take."""
    memory_plan: dict[str, Any] | None = None
    """How the run that this one repeats fitted into memory."""
    smaller_plan: dict[str, Any] | None = None
    """How to compute from now on, after memory ran out on one of several ranks."""
    ranks: Annotated[int, Field(ge=1)] = 1
    """Processes that train the trial together, each on a device of its own."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines that they are on, as many on each."""
    followers: list[Line] = Field(default_factory=list)
    """The connections to the other machines, for the process that starts the ranks."""
    checkpoints: CheckpointPolicy | None = None
    """Which weights to write beside the last ones."""
    measures: list[str] = Field(default_factory=list)
    """Metrics to measure that are not measured otherwise."""
    readers: int | None = None
    """Threads that read clips for a GPU; None for the default of the loader."""
    compile: Literal["blocks", "graphs"] | None = None
    """Whether updates are computed by blocks that are compiled, and by CUDA graphs of these."""
    tensorboard: bool = False
    """Whether to write event files of TensorBoard too."""
    pulse_seconds: Annotated[float, Field(gt=0)] = 5.0
    """How often the child gives a sign of life."""


class Command(Message):
    """What the child does next. `continue` is the answer to the report of `epoch`; the others end the training."""

    action: Literal["continue", "stop", "pause", "drain"]
    epoch: int = 0


class Note(Message):
    """Something a person may want to read."""

    kind: Literal["note"] = "note"
    text: str
    warning: bool = False


class Preparation(Message):
    """How far a step of the data set's preparation is."""

    stage: str
    """Such as `decoding`."""
    done: int
    """Videos."""
    total: int
    seconds_left: float | None
    """Until the end of this step; None before its first videos show it."""


class Alive(Message):
    """The process lives; `steps` counts what it has done: videos prepared, or batches begun."""

    kind: Literal["alive"] = "alive"
    is_training: bool
    steps: int
    progress: Preparation | TrainingProgress | None = None
    """What a person sees of it, where it is known."""


class Started(Message):
    """Training begins, after `epoch` whole epochs and `batch` batches of the next one."""

    kind: Literal["started"] = "started"
    epoch: int
    batch: int
    epochs: int
    checkpoint: str | None
    measurements: list[Measurement]
    """Epochs that are in the checkpoint but were never reported."""
    confusion: Confusion | None = None
    """Of the newest validation of the checkpoint."""
    weights: list[LoadedWeights] = Field(default_factory=list)
    """What the model was given before its training."""
    dataset_version: str | None = None


class EpochDone(Message):
    """An epoch is over, and its checkpoint is on disk."""

    kind: Literal["epoch"] = "epoch"
    measurement: Measurement
    checkpoint: str | None
    """The newest; None where there is none, as of a function that hands over none."""
    peak_memory_bytes: int | None
    confusion: Confusion | None = None
    """Of the validation after the epoch, if there was one."""


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
    confusion: Confusion | None = None


class Failed(_LastEvent):
    """The trial failed and has no result."""

    kind: Literal["failed"] = "failed"
    failure_kind: FailureKind
    message: str


class Interrupted(_LastEvent):
    """The trial was asked to pause or drain, and its checkpoint, if it has one, is on disk."""

    kind: Literal["interrupted"] = "interrupted"
    checkpoint: str | None


class WorkerFault(Message):
    """The trial ended through a fault of this machine, or through what may be one, and not of its configuration."""

    kind: Literal["worker_fault"] = "worker_fault"
    fault: Fault
    message: str


class Restart(Message):
    """Memory ran out on one of several ranks: all of them start again from the newest checkpoint, by a smaller plan.

    For the process that started the ranks; a worker never gets it.
    """

    kind: Literal["restart"] = "restart"
    plan: dict[str, Any]


LastEvent = Finished | Failed | Interrupted | WorkerFault
Event = Annotated[Note | Alive | Started | EpochDone | LastEvent | Restart, Field(discriminator="kind")]
EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
