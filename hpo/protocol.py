"""What workers and the API say to each other: the bodies of the lease, report, finish and release calls.

A worker speaks HTTP only. It chooses the `lease_id` (a UUID), so a claim whose reply was lost is sent again and finds
its own trial; (trial, attempt, lease_id) is the fence that every later call carries.
"""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from .spec.checkpoints import CheckpointPolicy
from .spec.resources import MOST_GPUS, MOST_NODES, Resources
from .spec.tasks import DEFAULT_KIND, AnyTask
from .trial import Decision, FailureKind, Fault, ParamValue

LARGEST_METRIC: Final = 1e100
"""More than any number of a training process has, and few enough that sums and squares of metrics are numbers too."""
LONGEST_SECONDS: Final = 366 * 86400.0
"""The most time that an epoch may be said to have taken."""
MOST_METRICS: Final = 100
MOST_MEASUREMENTS: Final = 10_000
"""In one report: the most epochs that a study can have."""
MOST_IMPORTED: Final = 5_000
"""Results from elsewhere in one call."""
MOST_CLASSES: Final = 1000
"""Of a confusion matrix; with more there is none."""
CLASS_NAME_CHARACTERS: Final = 100
MOST_CELLS: Final = 10_000
"""Of a confusion matrix, those with zero left out."""
ENVIRONMENT_BYTES: Final = 64 * 1024
"""The most that the environment of a trial may have as JSON."""


def _of_a_size(value: float) -> float:
    if abs(value) > LARGEST_METRIC:
        raise ValueError(f"{value:g} is not a metric: it must be from {-LARGEST_METRIC:g} to {LARGEST_METRIC:g}")
    return value


FiniteMetrics = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=100)],
        Annotated[float, Field(allow_inf_nan=False), AfterValidator(_of_a_size)],
    ],
    Field(max_length=MOST_METRICS),
]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Place = Annotated[int, Field(ge=0, lt=MOST_CLASSES)]
Cell = tuple[Place, Place, Count]
Bytes = Annotated[int, Field(gt=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)]
Reference = Annotated[str, Field(min_length=1, max_length=4096)]
"""A path of a checkpoint."""
Sentence = Annotated[str, Field(max_length=20_000)]
STUDY_HEADER: Final = "Study-Uuid"
"""Header of the answer with a lease: the identity of its study. Workers of earlier releases would refuse a field."""
QUARANTINE_HEADER: Final = "Worker-Quarantine"
"""Header of the answer that there is no trial: why this worker gets none, percent-encoded."""
LOG_KEPT_BYTES: Final = 256 * 1024
"""How much of the end of an attempt's log is kept."""
LOG_PART_BYTES: Final = 64 * 1024
"""The most of a log that one call carries."""
_MAX_DEPTH: Final = 100
"""Levels of lists and objects in a message: more than any has, and fewer than the stack of every Python can hold."""


class Message(BaseModel):
    """Base of all messages: unknown fields are errors.

    A traceback or a host name may hold anything; characters that Postgres cannot store become a question mark.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    added: ClassVar[frozenset[str]] = frozenset()
    """Fields that earlier releases do not know, and refuse."""

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return _storable(value)

    def to_json(self) -> str:
        """Return the message as it is sent: without fields of `added` that say nothing."""
        return self.model_dump_json(exclude={name for name in self.added if not getattr(self, name)})


class Tensors(Message):
    """Tensors of a model or a file: how many there are, and the names of the first."""

    count: Annotated[int, Field(ge=0, le=2**31 - 1)]
    first: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=8)]


class LoadedWeights(Message):
    """What a trial started from. Names are the model's, those of `dropped` the file's."""

    source: Annotated[str, Field(min_length=1, max_length=500)]
    """As the configuration names it."""
    stream: Literal["rgb", "flow"] | None = None
    """The stream that got it; None for the whole model."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    layout: Annotated[str, Field(max_length=200)]
    """The program with the names of the file."""
    network: Annotated[str, Field(max_length=200)] = ""
    """The network of the file, where it is known."""
    loaded: Annotated[int, Field(ge=0, le=2**31 - 1)]
    """Number of tensors taken from the file."""
    adapted: Tensors
    """Those of the loaded ones that were changed in shape."""
    reset: Tensors
    """Of the classifier, drawn anew because the file has other classes."""
    kept: Tensors
    """Drawn anew because the file's kind of network lacks them."""
    dropped: Tensors
    """Tensors of the file that the model does not need."""
    notes: Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=100)] = Field(default_factory=list)
    """What a person should know about the fit."""


class WorkerInfo(Message):
    """Who is asking. `memory_bytes` is that of the GPU (of the machine for a CPU worker)."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    host: Annotated[str, Field(max_length=255)]
    pid: Annotated[int, Field(ge=0, le=2**31 - 1)]
    device: Annotated[str, Field(max_length=100)]
    """Such as `cpu` or `cuda:0`."""
    gpu_name: Annotated[str, Field(max_length=200)] | None = None
    memory_bytes: Bytes | None = None
    version: Annotated[str, Field(max_length=100)] = ""
    start_id: Annotated[str, Field(max_length=64)] | None = None
    """What its process drew when it started: in a container, every process may have the same `pid`. Workers up to
    release 0.2.0 do not say it."""
    gpus: Annotated[int, Field(ge=1, le=MOST_GPUS)] = 1
    """How many a trial may have on each machine; `memory_bytes` is that of one of them."""
    nodes: Annotated[int, Field(ge=1, le=MOST_NODES)] = 1
    """Machines of the group that it leads: it takes trials of so many."""


class ClaimRequest(Message):
    """`POST /v1/leases`: ask for a trial; `study` limits the claim to one study.

    A trial is given only to a worker that can run it: `task_kinds` are the kinds of task of the studies that it serves.
    """

    worker: WorkerInfo
    lease_id: UUID
    study: Annotated[str, Field(max_length=200)] | None = None
    task_kinds: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]], Field(min_length=1, max_length=10)
    ] = Field(default_factory=lambda: [DEFAULT_KIND])
    """Workers up to release 0.2.0 do not say them: they train videos, and get no trials of other kinds."""

    def to_json(self) -> str:
        """Return the message as it is sent: without what says nothing, which earlier releases may not know."""
        worker = self.worker
        unsaid = {"start_id": worker.start_id is None, "gpus": worker.gpus == 1, "nodes": worker.nodes == 1}
        exclude: dict[str, Any] = {"worker": {name for name, is_unsaid in unsaid.items() if is_unsaid}}
        if self.task_kinds == [DEFAULT_KIND]:
            exclude["task_kinds"] = True
        return self.model_dump_json(exclude=exclude)


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
    weights: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the weights files that trials of the study started from, by their source: other files are refused."""
    study_uuid: UUID | None = Field(default=None, exclude=True)
    """The identity of the study among those of all databases, from `STUDY_HEADER`; None: the API does not say."""

    checkpoints: CheckpointPolicy | None = None
    """Which weights the training writes beside those that it continues from and its last ones."""

    measures: list[str] = Field(default_factory=list)
    """Metrics to measure that trials report only where their study names them."""

    resources: Resources | None = None
    """What the trial needs; one device where it is None."""

    added: ClassVar[frozenset[str]] = frozenset({"weights", "checkpoints", "measures", "resources"})


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


class Progress(Message):
    """How far an attempt is, for people to see. Nothing is decided by it."""

    stage: Literal["preparing", "training", "validation"]
    step: Annotated[str, Field(max_length=100)] = ""
    """Of the preparation of the data set, such as `scan`."""
    done: Annotated[int, Field(ge=0, le=2**53)]
    total: Annotated[int, Field(ge=0, le=2**53)]
    """Videos of a step of the preparation, else batches of this stage of the epoch."""
    epoch: Count | None = None
    """The running epoch, from 1; None during the preparation, as are the fields below."""
    epochs: Count | None = None
    loss: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Mean training loss per clip of the epoch so far; None also where it is not finite."""
    learning_rate: Annotated[float, Field(allow_inf_nan=False)] | None = None
    clips_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    waiting: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the time that training waited for data."""
    memory_bytes: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """The most memory of the device so far."""
    seconds_left: Seconds | None = None
    """Until the end of the step of the preparation, or of the trial."""


class Confusion(Message):
    """How the validation videos of one epoch were classified: a confusion matrix without its zeros."""

    step: Count
    """The epoch after which it was measured, from 1."""
    class_names: Annotated[
        list[Annotated[str, Field(max_length=CLASS_NAME_CHARACTERS)]], Field(max_length=MOST_CLASSES)
    ]
    videos: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(max_length=MOST_CLASSES)]
    """Videos of each class."""
    cells: Annotated[list[Cell], Field(max_length=MOST_CELLS)]
    """(class, class that the model said, number of videos): classes are places in `class_names`, numbers from 1. Where
    there are more than fit, rare confusions are left out, and never a video that was classified rightly."""

    @model_validator(mode="after")
    def _is_a_matrix(self) -> Self:
        if len(self.videos) != len(self.class_names):
            raise ValueError(f"{len(self.class_names)} classes need as many numbers of videos, not {len(self.videos)}")
        if len({(true, said) for true, said, _ in self.cells}) < len(self.cells):
            raise ValueError("a cell is there twice")
        counted = [0] * len(self.videos)
        for true, said, count in self.cells:
            if max(true, said) >= len(counted):
                raise ValueError(f"there is no class {max(true, said)}")
            counted[true] += count
        if any(some > every for some, every in zip(counted, self.videos, strict=True)):
            raise ValueError("the cells of a class have more videos than it has")
        return self


class ReportRequest(Fence):
    """`POST /v1/trials/{id}/reports`: heartbeat, measurements (maybe none) and the newest checkpoint in one call."""

    measurements: Annotated[list[Measurement], Field(max_length=MOST_MEASUREMENTS)] = Field(default_factory=list)
    checkpoint: Reference | None = None
    peak_memory_bytes: Bytes | None = None
    weights: Annotated[list[LoadedWeights], Field(max_length=10)] = Field(default_factory=list)
    """What the training started from; sent once, when it begins."""
    progress: Progress | None = None
    """How far the attempt is, at most every ten seconds; None changes nothing."""
    dataset_version: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """What the training reads; sent once, when it begins."""

    confusion: Confusion | None = None
    """Of the newest epoch with a validation; sent once, with its measurement."""

    added: ClassVar[frozenset[str]] = frozenset({"weights", "progress", "dataset_version", "confusion"})


class ReportReply(Message):
    """What to do next."""

    decision: Decision
    notice: str | None = None
    """What the worker should log: that other trials read other data. Only answers to a `dataset_version` have it."""


class FinishRequest(Fence):
    """`POST /v1/trials/{id}/finish`: the trial is over. `metrics` are the final values unless it failed."""

    outcome: Literal["completed", "stopped", "failed"]
    metrics: FiniteMetrics = Field(default_factory=dict)
    failure_kind: FailureKind | None = None
    failure_message: Sentence | None = None
    """One sentence first; a traceback, if any, after it."""
    checkpoint: Reference | None = None
    dataset_version: Annotated[str, Field(max_length=200)] | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    """Versions, device and thread count: what the export needs to repeat the run."""
    peak_memory_bytes: Bytes | None = None
    confusion: Confusion | None = None
    """Of the epoch that `metrics` are of."""

    added: ClassVar[frozenset[str]] = frozenset({"confusion"})

    @field_validator("environment")
    @classmethod
    def _environment_is_small_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        found = {key: _finite(inner) for key, inner in value.items()}
        if len(json.dumps(found, default=str)) > ENVIRONMENT_BYTES:
            raise ValueError(f"the environment has more than {ENVIRONMENT_BYTES // 1024} KiB as JSON")
        return found

    @model_validator(mode="after")
    def _failure_has_a_kind(self) -> Self:
        if (self.outcome == "failed") != (self.failure_kind is not None):
            raise ValueError("`failure_kind` belongs to the outcome `failed`, and to it alone")
        return self


class ReleaseRequest(Fence):
    """`POST /v1/trials/{id}/release`: give the trial back unfinished.

    `drained` (SIGTERM, preemption) and `paused` (the study was paused) cost no retry; `crashed` does, unless `fault`
    says that the machine was to blame.
    """

    reason: Literal["drained", "paused", "crashed"]
    message: Sentence | None = None
    checkpoint: Reference | None = None
    fault: Fault | None = None
    """What was wrong with the machine; for `crashed` only. Workers up to release 0.2.0 do not say it."""

    added: ClassVar[frozenset[str]] = frozenset({"fault"})

    @model_validator(mode="after")
    def _fault_of_a_crash(self) -> Self:
        if self.fault is not None and self.reason != "crashed":
            raise ValueError("`fault` belongs to the reason `crashed`, and to it alone")
        return self


class LogRequest(Fence):
    """`POST /v1/trials/{id}/log`: a part of what the attempt printed, sent once or again without a change."""

    start: Annotated[int, Field(ge=0, le=2**62)]
    """Where the part begins in the log, in bytes."""
    stop: Annotated[int, Field(ge=1, le=2**62)]
    """Where it ends."""
    text: Annotated[str, Field(max_length=LOG_PART_BYTES)]

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        if not 0 < self.stop - self.start <= LOG_PART_BYTES:
            raise ValueError(f"a part of a log has from 1 to {LOG_PART_BYTES} bytes")
        # Otherwise a byte of a log could hold 64 KiB of text, and its end, which is kept, gigabytes.
        if len(self.text) > self.stop - self.start:
            raise ValueError(f"{self.stop - self.start} bytes of a log cannot be {len(self.text)} characters")
        return self


class Origin(Message):
    """Where a result that was measured elsewhere comes from."""

    source: Annotated[str, Field(min_length=1, max_length=300)]
    """For a person, such as `Optuna study sweep`."""
    trial: Annotated[str, Field(min_length=1, max_length=100)]
    """What it is called there."""
    key: Annotated[str, Field(min_length=1, max_length=100)]
    """Identifies it: what has the key of an earlier one is that one, and is not taken over again."""


class ImportedTrial(Message):
    """A training elsewhere that has ended, as a configuration of the study."""

    origin: Origin
    params: dict[Annotated[str, Field(max_length=200)], Any]
    state: Literal["completed", "stopped", "failed"]
    metrics: FiniteMetrics = Field(default_factory=dict)
    """Final values; every objective and constraint where it has completed, none where it failed."""
    curve: Annotated[dict[Count, FiniteMetrics], Field(max_length=MOST_MEASUREMENTS)] = Field(default_factory=dict)
    """By epochs done."""
    failure_message: Sentence | None = None


class ImportRequest(Message):
    """`POST /v1/studies/{name}/import`: results from elsewhere; all are taken over, or none."""

    trials: Annotated[list[ImportedTrial], Field(min_length=1, max_length=MOST_IMPORTED)]


class Keep(StrEnum):
    """What stays of the files of a trial. Its log and its curve always do."""

    ALL = "all"
    """Everything: the trial has not ended."""
    WEIGHTS = "weights"
    """The last checkpoint, and further weights that the study wanted."""
    FURTHER = "further"
    """Only the further weights."""
    NOTHING = "nothing"


TrialIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(max_length=100_000)]


class FilesRequest(Message):
    """`POST /v1/checkpoints/plan`: which trials of a study a folder of checkpoints has files of."""

    study: UUID
    trials: TrialIds
    """Their ids."""


class TrialFiles(Message):
    """What stays of one trial."""

    trial_id: int
    number: int
    attempt: int
    """The last one that was claimed."""
    keep: Keep
    reason: str
    """Why so much or so little."""
    last: str | None
    """The file name of its last checkpoint, None if it has none."""


class FilesReply(Message):
    """What stays of the files of one study."""

    study: UUID
    name: str | None
    """None for a study that the service does not know."""
    state: Literal["exists", "deleted", "unknown"]
    """`unknown`: it may be of another service, or of a database that was lost."""
    quota_bytes: int | None = None
    trials: list[TrialFiles] = Field(default_factory=list)
    """Of those that were asked for, those that exist."""
    worst_first: list[int] = Field(default_factory=list)
    """Ids of the trials whose weights a quota may remove, in the order in which they go."""


class RemovalsRequest(Message):
    """`POST /v1/checkpoints/removals`: whether the weights of these trials may go now."""

    study: UUID
    trials: TrialIds
    last: TrialIds
    """Those of them whose last checkpoint goes."""


class RemovalsReply(Message):
    """Those of the trials whose weights may go; what was recorded of the others is not changed."""

    trials: list[int]


class RemovedFiles(Message):
    """What was removed from a folder, and what was not."""

    files: int = 0
    bytes: int = 0
    left: list[str] = Field(default_factory=list)
    """A sentence for each thing that stays although it should go."""


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
