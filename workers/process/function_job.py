"""Do one job with a person's own function: resume, call it, keep its checkpoints, send events. Needs no torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import platform
import random
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from hpo.functions.trial import Plan, Request, Resumed, Trial, TrialInterrupted
from hpo.protocol import Measurement
from hpo.trial import Fault

from ..checkpoints.folder import ResumePoint, TrialFolder, Writable, open_file, run_in
from ..checkpoints.reference import folders_of
from ..errors import CheckpointError, TimeLimitError
from ..functions import checkpoints
from ..functions.entry import LoadedFunction
from ..functions.failure import classify
from ..training.progress import TrainingProgress
from .messages import EpochDone, Failed, Finished, Interrupted, Job, LastEvent, Note, Started, WorkerFault
from .pipes import EventPipe, Mailbox
from .pulse import Pulse

ANSWER_SECONDS: Final = 5.0
"""How long a function waits after a report for the decision about it; a later one is obeyed at the next report."""
_VERSIONS: Final = ("numpy", "torch", "sklearn", "xgboost", "lightgbm", "jax", "tensorflow")
"""Libraries whose versions are kept with a trial, where its function has imported them."""
_COPIED_BYTES: Final = 2**20
_SCRATCH: Final = "resumed"
"""Folder below that of the trial for files that checkpoints give back."""


def run_function_job(job: Job, function: LoadedFunction, *, events: EventPipe, mailbox: Mailbox) -> None:
    """Call the function, and send exactly one last event, whatever it does."""
    run = _FunctionRun(job, function, events, mailbox)
    last: LastEvent
    with Pulse(events, seconds=job.pulse_seconds) as pulse:
        pulse.trains(_Living())
        try:
            last = run.call()
        except BaseException as error:  # the boundary: whatever a function raises becomes the record of the trial
            kind, message = classify(error)
            with contextlib.suppress(OSError):  # the disk of the log may be what failed
                print("the trial ended with an error:", message.partition("\n")[2] or message, sep="\n", flush=True)
            if isinstance(kind, Fault):
                last = WorkerFault(fault=kind, message=message)
            else:
                last = Failed(failure_kind=kind, message=message, **run.facts())
        shutil.rmtree(job.folder / _SCRATCH, ignore_errors=True)
    events.send(last)


class _Living:
    """What lives takes a step with each sign of life: nobody knows how long a function of somebody else's takes."""

    progress: TrainingProgress | None = None

    def __init__(self) -> None:
        self._count = itertools.count(1)

    @property
    def steps(self) -> int:
        """How often it was asked."""
        return next(self._count)


class _FunctionRun:
    """The state of one job, and the study for its `Trial`."""

    def __init__(self, job: Job, function: LoadedFunction, events: EventPipe, mailbox: Mailbox) -> None:
        self._job = job
        self._function = function
        self._events = events
        self._mailbox = mailbox
        self._folder = TrialFolder(job.folder, attempt=job.attempt, run=job.run)
        self._curve: list[Measurement] = []
        self._checkpoint: Path | None = None
        self._began = self._reported_at = time.monotonic()
        config = dict(job.config)
        self._seed = int(config.get("seed", 0))
        if "seed" not in job.task.base and not job.seed_is_searched:
            config.pop("seed", None)
        self._params = config
        self._trial = Trial(
            Plan(
                study=job.study,
                number=job.number,
                attempt=job.attempt,
                seed=self._seed,
                params=config,
                metrics=tuple(job.task.reported_metrics),
                epochs=job.task.epochs,
                device=job.device,
            ),
            self,
        )

    def call(self) -> Finished | Interrupted:
        """Call the function to its end or to an interruption, and return which it was."""
        _seed_libraries(self._seed)
        print(f"environment: {json.dumps(self.facts()['environment'])}", flush=True)
        self._events.send(
            Started(
                epoch=0,
                batch=0,
                epochs=self._job.task.epochs,
                checkpoint=None,
                measurements=[],
                dataset_version=self._function.version,
            )
        )
        self._began = self._reported_at = time.monotonic()
        value: object = None
        with contextlib.suppress(TrialInterrupted):
            value = self._function.call(self._trial)
        return self._end(value)

    def _end(self, value: object) -> Finished | Interrupted:
        trial = self._trial
        is_early = trial.heard is not None and trial.reported_step < trial.max_epochs
        if is_early and trial.heard != "stop":
            return Interrupted(checkpoint=None if self._checkpoint is None else str(self._checkpoint), **self.facts())
        if is_early and not trial.reported_step:
            return Finished(outcome="stopped", metrics={}, checkpoint=None, **self.facts())
        metrics = trial.returned(value)
        if not self._curve:
            # What a function without epochs returns is what it has measured at its end.
            self._measure(trial.max_epochs, metrics)
        return Finished(
            outcome="stopped" if is_early else "completed",
            metrics=metrics,
            checkpoint=self._final_checkpoint(),
            **self.facts(),
        )

    def _final_checkpoint(self) -> str | None:
        if self._checkpoint is None:
            return None
        return str(self._folder.write_final(partial(_copy, self._checkpoint)))

    def request(self) -> Request | None:
        """Return what the worker has asked this process to do."""
        command = self._mailbox.request
        return None if command is None or command.action == "continue" else command.action

    def resume(self) -> Resumed | None:
        """Return the newest checkpoint that can be used, after telling the worker of it; None if there is none."""
        found = self._newest_usable() if self._job.resume else None
        if found is None:
            return None
        kept, content = found
        self._checkpoint, self._curve = kept.path, list(kept.curve)
        if kept.path.parent == self._folder.path:
            self._folder.run = run_in(kept.path.name) or ""  # the run goes on, and removes what it replaces
        self._events.send(
            Started(
                epoch=kept.epoch,
                batch=0,
                epochs=self._job.task.epochs,
                checkpoint=str(kept.path),
                measurements=[one for one in self._curve if one.step > self._job.epochs_reported],
            )
        )
        print(f"continues after epoch {kept.epoch} from {kept.path.name}", flush=True)
        return Resumed(epoch=kept.epoch, checkpoint=content)

    def report(self, step: int, metrics: Mapping[str, float], checkpoint: object) -> None:
        """Keep the checkpoint, send the measurement, and wait for the decision about it.

        Raises:
            TimeLimitError: the trial has run longer than it may.
            FunctionError: the checkpoint is of a form that cannot be kept.
            CheckpointWriteError: it cannot be written.
        """
        measurement = self._measurement(step, metrics)
        self._curve.append(measurement)
        if checkpoint is not None:
            kept = checkpoints.writer(checkpoint, epoch=step, curve=self._curve, params=self._identity)
            self._checkpoint = self._folder.write_resume_point(kept, epoch=step, batch=0)
        self._send(measurement)
        minutes = self._job.task.timeout_minutes
        if minutes is not None and time.monotonic() - self._began > 60 * minutes:
            raise TimeLimitError(f"the trial took longer than its time limit of {minutes:g} minutes")
        if step < self._job.task.epochs:
            self._mailbox.wait_for_answer(step, ANSWER_SECONDS)

    def facts(self) -> dict[str, Any]:
        """Return what every last event carries."""
        entry: dict[str, Any] = {"name": self._function.name, "sha256": self._function.sha256}
        if self._job.seed_is_searched:
            entry["seed_is_searched"] = True  # `hpo train` hands it over again
        versions = {
            name: str(sys.modules[name].__version__)
            for name in _VERSIONS
            if hasattr(sys.modules.get(name), "__version__")
        }
        environment = {
            "entry": entry,
            "python": platform.python_version(),
            "device": self._job.device,
            "threads": self._job.threads,
            **versions,
        }
        return {
            "dataset_version": self._function.version,
            "environment": environment,
            "peak_memory_bytes": _peak_memory_bytes(self._job.device),
        }

    @property
    def _identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to: another configuration does not continue from it."""
        return {**self._params, "seed": self._seed}

    def _measure(self, step: int, metrics: Mapping[str, float]) -> None:
        measurement = self._measurement(step, metrics)
        self._curve.append(measurement)
        self._send(measurement)

    def _measurement(self, step: int, metrics: Mapping[str, float]) -> Measurement:
        now = time.monotonic()
        seconds, self._reported_at = now - self._reported_at, now
        # The device is occupied for as long as the epoch lasts.
        return Measurement(step=step, metrics=dict(metrics), wall_seconds=seconds, gpu_seconds=seconds)

    def _send(self, measurement: Measurement) -> None:
        self._events.send(
            EpochDone(
                measurement=measurement,
                checkpoint=None if self._checkpoint is None else str(self._checkpoint),
                peak_memory_bytes=_peak_memory_bytes(self._job.device),
            )
        )

    def _newest_usable(self) -> tuple[checkpoints.Kept, object] | None:
        """Return the newest checkpoint that can be read and is of this configuration, and what it holds."""
        for point in self._resume_points():
            try:
                kept = checkpoints.read(point.path)
                if dict(kept.params) != self._identity:
                    continue
                return kept, kept.content(self._job.folder / _SCRATCH)
            except CheckpointError as error:
                self._events.send(Note(text=str(error), warning=True))
        if self._job.checkpoint is not None:
            text = f"the checkpoint {self._job.checkpoint} cannot be used here; the trial starts from the beginning"
            self._events.send(Note(text=text, warning=True))
        return None

    def _resume_points(self) -> list[ResumePoint]:
        """Return those of this run, and those of the API's checkpoint in its folder, newest first."""
        points = set(self._folder.resume_points())
        if self._job.checkpoint is not None:
            path, roots = Path(self._job.checkpoint), self._job.checkpoint_roots
            for folder in [path.parent] if roots is None else folders_of(self._job.checkpoint, roots):
                other = TrialFolder(folder, attempt=self._job.attempt, run=run_in(path.name) or "")
                points |= set(other.resume_points())
        return sorted(points, reverse=True)


class NotesToWorker(logging.Handler):
    """Sends warnings to the log of the worker, where a person sees them."""

    def __init__(self, events: EventPipe) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        self._events.send(Note(text=record.getMessage(), warning=True))


def _seed_libraries(seed: int) -> None:
    """Seed the generators of random numbers that the function may use without a seed of its own."""
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def _copy(source: Path, target: Writable) -> None:
    with open_file(source) as file:
        while part := file.read(_COPIED_BYTES):
            target.write(part)


def _peak_memory_bytes(device: str) -> int | None:
    """Return the most memory that this process has taken: of the GPU as far as PyTorch knows it, else main memory."""
    if device == "cuda":
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return None
        return int(torch.cuda.max_memory_reserved()) or None
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        peak = next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)
    return 1024 * peak or None
