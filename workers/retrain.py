"""Train one configuration outside a study, or run a person's function with it: `hpo train best.yaml`.

It runs the process that runs a trial, and reports to no API. So on the same machine, on a CPU with the same thread
count, it reaches the value that the study got, to the last digit.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from hpo.spec import TaskConfig, VideoTask
from hpo.trial import CUSTOM

from .checkpoints.folder import TrialFolder, run_in, run_of
from .device.detection import Device
from .errors import TrainingFailedError
from .functions.entry import Entry
from .process.child import Child, ProcessExited
from .process.functions import FunctionProcesses
from .process.messages import Command, EpochDone, Event, Failed, Finished, Interrupted, Job, Started, WorkerFault

_CHECKPOINT_SECONDS = 20.0
"""How long an interrupted training may take to write its checkpoint."""
_PULSE_SECONDS = 1.0
"""How often the progress is known anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a training run reached."""

    metrics: dict[str, float]
    """Of the last epoch, by the names of the task's `reported_metrics`."""
    curve: dict[int, dict[str, float]]
    """The metrics after each epoch, counted from 1."""
    checkpoint: Path | None
    """The final weights; None of a function that has handed over no checkpoint."""
    dataset_version: str | None
    environment: dict[str, Any]


def train_export(
    config: Mapping[str, Any],
    task: TaskConfig,
    *,
    device: Device,
    folder: Path,
    cache_dir: Path,
    weights_roots: Sequence[Path] = (),
    weights: Mapping[str, str] | None = None,
    stop_after: int | None = None,
    resume: bool = False,
    refit: bool = False,
    memory_plan: Mapping[str, Any] | None = None,
    compiled: Literal["blocks", "graphs"] | None = None,
    measures: Sequence[str] = (),
    progress: Callable[[Event], None] | None = None,
) -> TrainingResult:
    """Train the flat `config` on `task` and return its validation metrics and final weights.

    The seed is part of `config`; the thread count is that of `device` (for the same digits, the recorded one).

    Args:
        weights_roots: folders of the files that the training may start from.
        weights: SHA-256 that these files must have, by their source.
        folder: where checkpoints go. Nothing in it is removed but what this run itself writes.
        stop_after: epochs after which to end, of the `task.epochs` that the schedule is planned for: the `epochs_done`
            of a trial that was stopped early.
        resume: continue the run that last wrote a checkpoint in `folder`, such as one that Ctrl-C ended.
        refit: train on the validation videos as well; validation metrics say nothing then.
        memory_plan: the `memory_plan` of the environment that the run to repeat recorded: this run computes its batches
            in the same parts, if they fit.
        compiled: the same of how blocks were compiled.
        measures: metrics to measure that are not measured otherwise.
        progress: called with every event: `Note`, `Alive` (every second), `Started`, `EpochDone`, and the last one.

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
        run=run_of(uuid4()),
        resume=resume,
        refit=refit,
        checkpoint=_newest(folder) if resume else None,
        cache_dir=cache_dir,
        # A person has named this data set, as any folder.
        remote_roots=[str(task.dataset.root)] if isinstance(task, VideoTask) else [],
        weights_roots=list(weights_roots),
        weights=dict(weights or {}),
        device=device.kind,
        threads=device.threads,
        bf16=device.bf16,
        fp16=device.fp16,
        deterministic=device.deterministic,
        memory_share=device.memory_share,
        memory_plan=None if memory_plan is None else dict(memory_plan),
        compile=compiled,
        measures=list(measures),
        pulse_seconds=_PULSE_SECONDS,
    )
    return _run(Child.start(device, folder), job, progress)


def run_export(
    config: Mapping[str, Any],
    task: TaskConfig,
    entry: Entry,
    *,
    study: str,
    number: int,
    device: Device,
    folder: Path,
    stop_after: int | None = None,
    seed_is_searched: bool = False,
    progress: Callable[[Event], None] | None = None,
) -> TrainingResult:
    """Run a person's function with the flat `config` as trial `number` of `study`, and return what it measured.

    Args:
        folder: where checkpoints go.
        stop_after: epochs after which the function is stopped, as the trial was.
        seed_is_searched: whether `seed` is one of the function's parameters.
        progress: called with every event.

    Raises:
        SetupError: the function cannot be imported.
        TrainingFailedError, KeyboardInterrupt: as in `train_export`.
    """
    job = Job(
        config=dict(config),
        task=task,
        study=study,
        number=number,
        seed_is_searched=seed_is_searched,
        folder=folder,
        attempt=1,
        run=run_of(uuid4()),
        resume=False,
        cache_dir=folder,
        device=device.kind,
        threads=device.threads,
        pulse_seconds=_PULSE_SECONDS,
    )
    with closing(FunctionProcesses(entry, device, folder)) as processes:
        return _run(processes.take(), job, progress, stop_after=stop_after)


def _run(
    child: Child, job: Job, progress: Callable[[Event], None] | None, *, stop_after: int | None = None
) -> TrainingResult:
    events: queue.SimpleQueue[Event | ProcessExited] = queue.SimpleQueue()
    try:
        child.assign(job, TrialFolder(job.folder, attempt=1).log, events.put)
        return _follow(child, events, job, progress, stop_after)
    except KeyboardInterrupt:
        child.send(Command(action="drain"))
        child.end(patience_seconds=_CHECKPOINT_SECONDS)
        raise
    finally:
        child.end()


def _newest(folder: Path) -> str | None:
    """Return the checkpoint that was written last, of whichever run."""
    paths = [point.path for point in TrialFolder(folder, attempt=1).resume_points_of_all()]
    return str(max(paths, key=lambda path: path.stat().st_mtime_ns)) if paths else None


def _follow(
    child: Child,
    events: queue.SimpleQueue[Event | ProcessExited],
    job: Job,
    progress: Callable[[Event], None] | None,
    stop_after: int | None,
) -> TrainingResult:
    curve: dict[int, dict[str, float]] = {}
    while True:
        event = events.get()
        if isinstance(event, ProcessExited):
            raise TrainingFailedError(f"{event}; it printed: {child.log_tail() or 'nothing'}")
        if progress is not None:
            progress(event)
        match event:
            case Started():
                curve = {measurement.step: measurement.metrics for measurement in event.measurements}
            case EpochDone():
                curve[event.measurement.step] = event.measurement.metrics
                step = event.measurement.step
                child.send(Command(action="stop" if step == stop_after else "continue", epoch=step))
            case Failed():
                raise TrainingFailedError(event.message, kind=event.failure_kind)
            case WorkerFault():
                raise TrainingFailedError(event.message)
            case Finished() if event.checkpoint is not None or (event.metrics and job.task.kind == CUSTOM):
                return _result(event, curve)
            case Finished() | Interrupted():
                raise TrainingFailedError("the training ended before its first epoch was done")


def _result(event: Finished, curve: dict[int, dict[str, float]]) -> TrainingResult:
    final = None if event.checkpoint is None else Path(event.checkpoint)
    if final is not None:
        TrialFolder(final.parent, attempt=1, run=run_in(final.name) or "").remove_resume_points()
    return TrainingResult(
        metrics=event.metrics,
        curve=curve,
        checkpoint=final,
        dataset_version=event.dataset_version,
        environment=event.environment,
    )
