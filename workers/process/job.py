"""Do one job in the training process: open the data set, resume, train, save checkpoints, send events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from data import Dataset, open_dataset
from hpo.protocol import Measurement
from hpo.spec import TrainingConfig, VideoTask

from ..checkpoints import contents as checkpoint
from ..checkpoints.folder import ResumePoint, TrialFolder
from ..errors import CheckpointWriteError
from ..training.epoch import EpochResult
from ..training.failure import classify
from ..training.reproducibility import Runtime, describe, peak_memory_bytes
from ..training.trainer import Trainer, final_state
from .messages import EpochDone, Failed, Finished, Interrupted, Job, LastEvent, Note, Started, WorkerFault
from .pipes import EventPipe, Mailbox

ANSWER_SECONDS = 5.0
"""How long training waits after an epoch for the decision about it; a later one is obeyed at the next batch."""
_PROGRESS_SECONDS = 5.0
"""The shortest time between two notes about the progress of the data set's preparation."""
_log = logging.getLogger(__name__)


def warm_up() -> None:
    """Create an optimizer: the first one loads half as much as the import of PyTorch, better before there is a job."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def run_job(job: Job, *, events: EventPipe, mailbox: Mailbox) -> None:
    """Train, and send exactly one last event, whatever happens: every exception becomes a `Failed` or `WorkerFault`."""
    logging.basicConfig(level=logging.WARNING, handlers=[_WarningsToWorker(events), logging.StreamHandler()])
    run = _JobRun(job, events, mailbox)
    last: LastEvent
    try:
        last = run.train()
    except CheckpointWriteError as error:
        last = WorkerFault(message=str(error), **run.facts())
    except Exception as error:  # the boundary: whatever fails becomes the record of the trial
        _log.debug("the trial failed", exc_info=True)
        failure = classify(error)
        last = Failed(failure_kind=failure.kind, message=failure.message, **run.facts())
    events.send(last)


class _JobRun:
    """The state of one job."""

    def __init__(self, job: Job, events: EventPipe, mailbox: Mailbox) -> None:
        self.job = job
        self.events = events
        self.mailbox = mailbox
        self.folder = TrialFolder(job.folder, attempt=job.attempt)
        self.runtime = Runtime(
            device=torch.device(job.device), threads=job.threads, bf16=job.bf16, deterministic=job.deterministic
        )
        self._dataset: Dataset | None = None
        self._trainer: Trainer | None = None

    def train(self) -> Finished | Interrupted:
        """Run the trial to its end or to an interruption, and return which it was."""
        job = self.job
        if not isinstance(job.task, VideoTask):
            raise TypeError(f"this worker trains video models, and the task is of the kind {job.task.kind!r}")
        config = TrainingConfig.from_flat(job.config)
        dataset = open_dataset(job.task.dataset, cache_dir=job.cache_dir, progress=_progress_notes(self.events))
        self._dataset = dataset
        if dataset.problems:
            first = dataset.problems[0]
            _log.warning("%d videos are left out, such as %s (%s)", len(dataset.problems), first.path, first.note)
        minutes = job.task.timeout_minutes
        trainer = self._trainer = Trainer(
            config,
            epochs=job.task.epochs,
            dataset=dataset,
            runtime=self.runtime,
            time_limit_seconds=None if minutes is None else minutes * 60,
        )
        started_from = self._resume(trainer)
        self.events.send(
            Started(
                epoch=trainer.epoch,
                batch=trainer.batch,
                epochs=trainer.epochs,
                checkpoint=None if started_from is None else str(started_from),
                measurements=[_measurement(r) for r in trainer.curve if r.epoch > job.epochs_reported],
            )
        )
        completed = trainer.run(interrupted=self._interrupted, epoch_done=self._epoch_done)
        return self._end(trainer, completed)

    def facts(self) -> dict[str, Any]:
        """Return what every last event carries, as far as it is known."""
        trainer = self._trainer
        # 0 before CUDA has allocated anything, which the protocol does not take.
        facts: dict[str, Any] = {"peak_memory_bytes": peak_memory_bytes(self.runtime.device) or None}
        if self._dataset is not None:
            facts["dataset_version"] = self._dataset.version
        if trainer is not None:
            facts["environment"] = describe(self.runtime, precision=trainer.precision)
        return facts

    def _resume(self, trainer: Trainer) -> Path | None:
        if not self.job.resume:
            self.folder.clear()
            return None
        found = checkpoint.newest_usable([point.path for point in self._resume_points()], trainer.identity)
        if found is None:
            if self.job.checkpoint is not None:
                _log.warning(
                    "the checkpoint %s cannot be used here; the trial starts from the beginning", self.job.checkpoint
                )
            return None
        path, state = found
        trainer.load_state(state)
        return path

    def _resume_points(self) -> list[ResumePoint]:
        """Return those of this trial's folder and of the folder of the API's checkpoint, newest first."""
        points = set(self.folder.resume_points())
        if self.job.resume and self.job.checkpoint is not None:
            points |= set(TrialFolder(Path(self.job.checkpoint).parent, attempt=self.job.attempt).resume_points())
        return sorted(points, reverse=True)

    def _interrupted(self) -> bool:
        trainer = self._trainer
        ended = trainer is not None and trainer.batch == 0 and trainer.epoch == self.job.stop_after
        return ended or self.mailbox.request is not None

    def _epoch_done(self, result: EpochResult) -> None:
        trainer = self._trainer
        assert trainer is not None  # noqa: S101 - the trainer is the caller
        path = self._save(trainer)
        self.events.send(
            EpochDone(
                measurement=_measurement(result),
                checkpoint=str(path),
                peak_memory_bytes=peak_memory_bytes(self.runtime.device),
            )
        )
        if result.epoch < trainer.epochs:
            self.mailbox.wait_for_answer(result.epoch, ANSWER_SECONDS)

    def _save(self, trainer: Trainer) -> Path:
        state = trainer.state()
        return self.folder.write_resume_point(checkpoint.writer(state), epoch=trainer.epoch, batch=trainer.batch)

    def _end(self, trainer: Trainer, completed: bool) -> Finished | Interrupted:
        request = self.mailbox.request
        if not completed and request is not None and request.action != "stop":
            return Interrupted(checkpoint=str(self._save(trainer)), **self.facts())
        state = self._last_whole_epoch(trainer)
        path = None if state is None else self.folder.write_final(checkpoint.writer(final_state(state)))
        return Finished(
            outcome="completed" if completed else "stopped",
            metrics=trainer.curve[-1].metrics if trainer.curve else {},
            checkpoint=None if path is None else str(path),
            **self.facts(),
        )

    def _last_whole_epoch(self, trainer: Trainer) -> dict[str, Any] | None:
        """Return the state that the last metrics belong to: the present one, unless a stop came within an epoch.

        None before the end of the first epoch, and where its checkpoint is damaged.
        """
        if trainer.epoch == 0:
            return None
        if trainer.batch == 0:
            return trainer.state()
        ends = [point.path for point in self._resume_points() if (point.epoch, point.batch) == (trainer.epoch, 0)]
        found = checkpoint.newest_usable(ends, trainer.identity)
        return None if found is None else found[1]


def _measurement(result: EpochResult) -> Measurement:
    # A GPU is occupied for as long as the epoch lasts, whether or not its kernels run.
    return Measurement(
        step=result.epoch, metrics=result.metrics, wall_seconds=result.seconds, gpu_seconds=result.seconds
    )


class _WarningsToWorker(logging.Handler):
    """Sends warnings to the log of the worker, where a person sees them."""

    def __init__(self, events: EventPipe) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.send(Note(text=record.getMessage(), warning=True))


def _progress_notes(events: EventPipe) -> Callable[[str, int, int], None]:
    """Return a callback that sends the worker a note about the data set's preparation every few seconds."""
    last = time.monotonic()

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_SECONDS:
            last = time.monotonic()
            events.send(Note(text=f"data set: {stage} {done} of {total} videos"))

    return progress
