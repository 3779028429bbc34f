"""A trial as every part of the service sees it: its states, its failure kinds, and what may be decided about it.

The state machine (the only statements that move a trial live in `hpo/store/lifecycle.sql`):

    suggested ──claim──▶ running ──▶ completed | stopped (early) | failed(kind)
        ▲  │                │ ▲
        │  └─withdrawn      │ └──claim── paused (checkpoint kept)
        └── retry ◀─────────┘   (lease lost, preempted, drained: resumes from its checkpoint)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

ParamValue = bool | int | float | str
Params = Mapping[str, ParamValue]
Metrics = Mapping[str, float]

VIDEO: Final = "video"
"""The kind of task that trains video models; that of a study that names none, such as the first releases stored."""
IMAGE: Final = "image"
"""The kind of task that trains classifiers of images."""
CUSTOM: Final = "custom"
"""The kind of task that runs a function of the user's own."""
ENQUEUED: Final = "enqueued"
"""The generator of the trials that a person asked for."""
IMPORTED: Final = "imported"
"""The generator of results from elsewhere."""
REPLICATE: Final = "replicate"
"""The generator of the trials by which a person has a configuration trained again."""
FINALISTS: Final = "finalists"
"""The generator of the trials by which the leaders of a study are trained again."""


class TrialState(StrEnum):
    """The state of a trial."""

    SUGGESTED = "suggested"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"

    @property
    def is_terminal(self) -> bool:
        """Whether the trial has ended; a person may take it out of its study then, and nothing else changes it."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED, TrialState.WITHDRAWN})
RESULT_STATES = frozenset({TrialState.COMPLETED, TrialState.STOPPED})
"""The states of trials that ended with a result."""


class StudyState(StrEnum):
    """The state of a study: only an active one gives trials to workers."""

    ACTIVE = "active"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"
    """It has ended without a result, or with more failures than its budget allows."""


class AttemptEnd(StrEnum):
    """How an attempt of a trial ended: with the trial, by a release, or without a word from its worker."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    PAUSED = "paused"
    DRAINED = "drained"
    CRASHED = "crashed"
    EXPIRED = "expired"
    """Its worker was not heard of any more."""
    UNKNOWN = "unknown"
    """It ended before ends were recorded."""


class FailureKind(StrEnum):
    """Why a trial failed."""

    OOM = "oom"
    """It did not fit into memory."""
    DIVERGED = "diverged"
    """Its loss became NaN or infinite."""
    ERROR = "error"
    """The training code raised; the traceback is kept."""
    TIMEOUT = "timeout"
    """It ran past its time limit."""
    LOST = "lost"
    """Its workers died until the retries were used up."""
    INVALID = "invalid"
    """The configuration cannot be built, or its data set is missing."""


class Fault(StrEnum):
    """What is wrong with a machine, or may be, when it gives a trial back as crashed."""

    DEVICE = "device"
    """Its GPU or driver: lost, busy, an ECC error, a driver that is too old."""
    ARCHITECTURE = "architecture"
    """Its PyTorch was built without kernels for its GPU."""
    STORAGE = "storage"
    """A disk or a mount: full, read-only, or it does not answer."""
    FILES = "files"
    """The data set, or a file of weights, is not where the study says; or a library that the study needs is missing."""
    SYSTEM = "system"
    """The operating system refuses what every program needs, such as another open file."""
    KERNEL = "kernel"
    """The GPU stopped within a computation: through a bug that the configuration reaches, or through the hardware."""
    HANG = "hang"
    """The training process made no progress any more."""
    PROCESS = "process"
    """The training process died without a word."""


MACHINE_FAULTS: Final = frozenset({Fault.DEVICE, Fault.ARCHITECTURE, Fault.STORAGE, Fault.FILES, Fault.SYSTEM})
"""Faults that no configuration causes: they cost no retry. Any other may be the configuration's or the machine's."""


class Decision(StrEnum):
    """What a worker does after a report."""

    CONTINUE = "continue"
    STOP = "stop"
    """Finish early; the result so far counts."""
    PAUSE = "pause"
    """Write a checkpoint and release the trial; it may continue later."""
    ABANDON = "abandon"
    """Drop the trial: its reports are no longer accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A configuration that an optimizer proposes, with its predictions.

    `predicted_mean` and `predicted_sd` are the model's prediction of the first objective, in its own unit, and
    `predicted_feasibility` is the probability that the constraints hold. They are None for generators without a model;
    the last is also None without constraints.
    """

    params: Params
    generator: str
    predicted_mean: float | None = None
    predicted_sd: float | None = None
    predicted_feasibility: float | None = None
    required_memory_bytes: int | None = None
    """Device memory it is expected to need: no smaller device gets it. None while it cannot be predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTrial:
    """The result of a trial of an earlier study, as a configuration of the study that learns from it."""

    study: str
    """The name of the earlier study."""
    params: Params
    metrics: Metrics
    weights: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of each file of weights that it started from, by its source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial read from the store (or kept in memory), with its learning curve.

    `curve` maps the step (epochs done, from 1) to the metrics reported there; where several attempts reported a
    step, those of the last attempt count. `metrics` are the final values of a completed or stopped trial.
    """

    id: int
    number: int
    state: TrialState
    params: Params
    curve: Mapping[int, Metrics] = field(default_factory=dict)
    metrics: Metrics | None = None
    attempt: int = 0
    failure_kind: FailureKind | None = None
    failure_message: str | None = None
    generator: str | None = None
    origin: Mapping[str, str] | None = None
    """Where a result from elsewhere was measured, as `hpo.protocol.Origin` has it; None for trials of the study."""
    replicate_of: int | None = None
    """The number of the first trial of its configuration, where it trains that again with a seed of its own."""
    predicted_mean: float | None = None
    predicted_sd: float | None = None
    predicted_feasibility: float | None = None
    worker: str | None = None
    """The worker of the last attempt."""
    lost_on: tuple[str, ...] = ()
    """The worker of each attempt that crashed or of which nothing was heard any more, in their order; without those of
    which it is known that the machine was to blame."""
    dataset_version: str | None = None
    """The version of the data that it was trained on, as its worker said; None before it said so."""
    weights: Sequence[Mapping[str, Any]] = ()
    """What its training started from, as its worker said."""
    epochs_done: int = 0
    gpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    progress: Mapping[str, Any] | None = None
    """How far a running trial is, as its worker said at `progress_at`."""
    progress_at: datetime | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_rival(self) -> bool:
        """Whether stopping rules compare trials with it: not one that is out, trained again or from elsewhere."""
        return self.state is not TrialState.WITHDRAWN and self.replicate_of is None and self.origin is None

    @property
    def last_step(self) -> int | None:
        """The last step reported, None before the first."""
        return max(self.curve, default=None)
