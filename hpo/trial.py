"""A trial as every part of the service sees it: its states, its failure kinds, what the optimizer decides.

The state machine (the only statements that move a trial live in `hpo/store/lifecycle.sql`):

    suggested ──claim──▶ running ──▶ completed | stopped (early) | failed(kind)
        ▲  │                │ ▲
        │  └─withdrawn      │ └──claim── paused (checkpoint kept)
        └── retry ◀─────────┘   (lease lost, preempted, drained: resumes from its checkpoint)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

ParamValue = bool | int | float | str
Params = Mapping[str, ParamValue]
Metrics = Mapping[str, float]

ENQUEUED: Final = "enqueued"
"""The generator of the trials that a person asked for."""


class TrialState(StrEnum):
    """Where a trial is in its life."""

    SUGGESTED = "suggested"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the trial any more."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED, TrialState.WITHDRAWN})


class StudyState(StrEnum):
    """Where a study is in its life: only an active one hands out trials."""

    ACTIVE = "active"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"


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
    """The configuration cannot be built, or its data set is not there."""


class Decision(StrEnum):
    """What a worker does after a report."""

    CONTINUE = "continue"
    STOP = "stop"
    """Finish early; the result so far counts."""
    PAUSE = "pause"
    """Write a checkpoint and give the trial back; it goes on later."""
    ABANDON = "abandon"
    """Drop the trial: nothing it reports is wanted any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A configuration that an optimizer proposes, and why.

    `predicted_mean` and `predicted_sd` are the model's belief about the first objective, in its own unit, and
    `predicted_feasibility` the probability that the constraints hold; None for generators without a model, and
    without constraints.
    """

    params: Params
    generator: str
    predicted_mean: float | None = None
    predicted_sd: float | None = None
    predicted_feasibility: float | None = None
    required_memory_bytes: int | None = None
    """Device memory it is expected to need: it is given to no smaller device. None while that cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTrial:
    """What a trial of an earlier study has shown, as a configuration of the study that learns from it."""

    study: str
    """The name of the earlier study."""
    params: Params
    metrics: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial read from the store (or kept in memory), with its learning curve.

    `curve` maps the step (epochs done, from 1) to the metrics reported there; where several attempts reported a
    step, the last attempt's stand. `metrics` are the final values of a completed or stopped trial.
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
    predicted_mean: float | None = None
    predicted_sd: float | None = None
    predicted_feasibility: float | None = None
    worker: str | None = None
    epochs_done: int = 0
    gpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def last_step(self) -> int | None:
        """The last step reported, None before the first."""
        return max(self.curve, default=None)
