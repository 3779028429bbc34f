"""Train one configuration outside a study: `hpo train best.yaml`.

It runs the process that runs a trial, and reports to no API. So on the same machine, on a CPU with the same thread
count, it reaches the value that the study got, to the last digit.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.spec import TaskConfig

from .checkpoints.folder import TrialFolder
from .device.detection import Device
from .errors import TrainingFailedError
from .process.child import Child, ProcessExited
from .process.messages import Command, EpochDone, Event, Failed, Finished, Interrupted, Job, WorkerFault

_CHECKPOINT_SECONDS = 20.0
"""How long an interrupted training may take to write its checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a training run reached."""

    metrics: dict[str, float]
    """Of the last epoch, by the names of the task's `reported_metrics`."""
    checkpoint: Path
    """The final weights."""
    dataset_version: str | None
    environment: dict[str, Any]


def train_export(
    config: Mapping[str, Any],
    task: TaskConfig,
    *,
    device: Device,
    folder: Path,
    cache_dir: Path,
    stop_after: int | None = None,
    resume: bool = False,
    progress: Callable[[Event], None] | None = None,
) -> TrainingResult:
    """Train the flat `config` on `task` and return its validation metrics and final weights.

    The seed is part of `config`; the thread count is that of `device` (for the same digits, the recorded one).

    Args:
        folder: where checkpoints go; its own, since it is cleared of earlier ones unless `resume`.
        stop_after: epochs after which to end, of the `task.epochs` that the schedule is planned for: the `epochs_done`
            of a trial that was stopped early.
        resume: continue from the newest checkpoint in `folder`, such as one that Ctrl-C left.
        progress: called with every event: `Note`, `Started`, `EpochDone`, and the last one.

    Raises:
        TrainingFailedError: with the message that the trial of a study would have failed with.
        KeyboardInterrupt: after the checkpoint was written.
    """
    job = Job(
        config=dict(config),
        task=task,
        stop_after=stop_after,
        folder=folder,
        attempt=1,
        resume=resume,
        cache_dir=cache_dir,
        device=device.kind,
        threads=device.threads,
        bf16=device.bf16,
        deterministic=device.deterministic,
    )
    events: queue.SimpleQueue[Event | ProcessExited] = queue.SimpleQueue()
    child = Child.start(device, folder)
    try:
        child.assign(job, TrialFolder(folder, attempt=1).log, events.put)
        return _follow(child, events, progress)
    except KeyboardInterrupt:
        child.send(Command(action="drain"))
        child.end(patience_seconds=_CHECKPOINT_SECONDS)
        raise
    finally:
        child.end()


def _follow(
    child: Child, events: queue.SimpleQueue[Event | ProcessExited], progress: Callable[[Event], None] | None
) -> TrainingResult:
    while True:
        event = events.get()
        if isinstance(event, ProcessExited):
            raise TrainingFailedError(f"{event}; it printed: {child.log_tail() or 'nothing'}")
        if progress is not None:
            progress(event)
        match event:
            case EpochDone():
                child.send(Command(action="continue", epoch=event.measurement.step))
            case Failed():
                raise TrainingFailedError(event.message, kind=event.failure_kind)
            case WorkerFault():
                raise TrainingFailedError(event.message)
            case Finished(checkpoint=str() as checkpoint):
                TrialFolder(Path(checkpoint).parent, attempt=1).remove_resume_points()
                return TrainingResult(
                    metrics=event.metrics,
                    checkpoint=Path(checkpoint),
                    dataset_version=event.dataset_version,
                    environment=event.environment,
                )
            case Finished() | Interrupted():
                raise TrainingFailedError("the training ended before its first epoch was done")
