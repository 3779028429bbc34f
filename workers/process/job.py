"""Do one job in the training process: open the data set, resume, train, save checkpoints, send events."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data import Dataset, open_dataset
from hpo.errors import SetupError
from hpo.protocol import Confusion, LoadedWeights, Measurement, Tensors
from hpo.spec import TrainingConfig, VideoTask
from hpo.spec.checkpoints import CheckpointPolicy
from hpo.trial import Fault

from ..checkpoints import contents as checkpoint
from ..checkpoints.folder import FileKind, ResumePoint, TrialFolder, run_in
from ..checkpoints.reference import folders_of
from ..errors import CheckpointError, TornUpdateError
from ..training.curve_files import CurveFiles
from ..training.data_roots import check_roots
from ..training.epoch import EpochResult, is_best
from ..training.failure import classify
from ..training.faults import memory_was_short
from ..training.meeting import Meeting
from ..training.memory import peak_memory_bytes
from ..training.memory_plan import MemoryPlan
from ..training.parallel import ALONE, World, join, lost_others
from ..training.reproducibility import Runtime, describe
from ..training.starting_weights import StartingWeights, WeightsFolders
from ..training.trainer import Trainer, final_state
from .beside import Beside, is_large, on_host
from .confusion import confusion_of
from .messages import EpochDone, Failed, Finished, Interrupted, Job, LastEvent, Note, Restart, Started, WorkerFault
from .pipes import LOST_OTHERS, EventPipe, Mailbox
from .pulse import Pulse, Standstill

ANSWER_SECONDS = 5.0
"""How long training waits after an epoch for the decision about it; a later one is obeyed at the next batch."""
MEETING_SECONDS = 1200.0
"""How long a rank waits for the others before its training begins; one may take minutes to import PyTorch."""
_PROBLEMS_NAMED = 5
"""Videos that are left out and named in what the trial reports, each with so much of its path and of the reason:"""
_PROBLEM_CHARACTERS = 200
_log = logging.getLogger(__name__)


def warm_up() -> None:
    """Create an optimizer: the first one loads half as much as the import of PyTorch, better before there is a job."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def run_job(job: Job, *, events: EventPipe, mailbox: Mailbox) -> None:
    """Train, and send exactly one last event, whatever happens: every exception becomes a `Failed` or `WorkerFault`."""
    _run(_JobRun(job, events, mailbox), lambda: ALONE)


def run_rank(job: Job, *, rank: int, meeting: Meeting, events: EventPipe, mailbox: Mailbox) -> None:
    """Train as one of the ranks of a trial; the first one reports and writes for all.

    Each rank sends what ended it. One that has only lost the others exits with `LOST_OTHERS`: they know more.

    Args:
        meeting: where the ranks of this run, and of no other, meet.
    """
    run = _JobRun(job, events, mailbox)

    def met() -> World:
        with _limited(partial(_miss_the_others, job, rank, meeting, events)):
            return join(rank, job.ranks, meeting, run.runtime.device)

    _run(run, met)


@contextlib.contextmanager
def _limited(give_up: Callable[[], None]) -> Iterator[None]:
    """Call `give_up` in a thread if the block takes longer than ranks may take to meet."""
    timer = threading.Timer(MEETING_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _miss_the_others(job: Job, rank: int, meeting: Meeting, events: EventPipe) -> None:
    """End this process: without an answer, PyTorch would wait for a day, and its signs of life would go on."""
    problem = f"rank {rank} of {job.ranks} has not met the others in {MEETING_SECONDS / 60:g} minutes"
    if job.nodes > 1:
        problem += (
            f": the machines of a group must reach each other at every TCP port, such as port {meeting.port} of the "
            "leader, over the interface that they talk over (GLOO_SOCKET_IFNAME)"
        )
    events.send(WorkerFault(fault=Fault.SYSTEM, message=problem))
    os._exit(LOST_OTHERS)


def _run(run: _JobRun, world: Callable[[], World]) -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[_WarningsToWorker(run.events), logging.StreamHandler()])
    last: LastEvent | Restart
    try:
        with run.pulse:
            run.world = world()
            try:
                last = run.train()
            finally:
                run.beside.drain()  # nothing is said after the last event
    except Exception as error:  # the boundary: whatever fails becomes the record of the trial
        device = run.runtime.device
        failure = classify(error, memory_was_short=partial(memory_was_short, device), on_gpu=device.type == "cuda")
        with contextlib.suppress(OSError):  # the disk of the log may be what failed
            _print("the trial ended with an error:", "".join(traceback.format_exception(error)).rstrip())
        if run.job.ranks > 1 and lost_others(error):
            os._exit(LOST_OTHERS)
        if isinstance(failure.kind, Fault):
            last = WorkerFault(fault=failure.kind, message=failure.message)
        else:
            last = Failed(failure_kind=failure.kind, message=failure.message, **run.facts())
    run.events.send(last)


class _JobRun:
    """The state of one job."""

    def __init__(self, job: Job, events: EventPipe, mailbox: Mailbox) -> None:
        self.job = job
        self.world = ALONE
        self.events = events
        self.mailbox = mailbox
        self.pulse = Pulse(events, seconds=job.pulse_seconds)
        self.folder = TrialFolder(job.folder, attempt=job.attempt, run=job.run)
        self._curve_files = CurveFiles(job.folder, tensorboard=job.tensorboard)
        self.beside = Beside()
        """Writes large checkpoints while the next epoch trains."""
        self.runtime = Runtime(
            device=torch.device(job.device),
            threads=job.threads,
            bf16=job.bf16,
            fp16=job.fp16,
            deterministic=job.deterministic,
            memory_share=job.memory_share,
            readers=job.readers,
            compile=job.compile,
            compile_cache=job.cache_dir / "compiled",
        )
        self._resumes = job.resume
        self._smaller = None if job.smaller_plan is None else MemoryPlan.from_state(job.smaller_plan)
        """What to continue with after memory ran out while weights were changed."""
        self._dataset: Dataset | None = None
        self._trainer: Trainer | None = None
        self._peak_bytes = 0
        """The most memory that a rank was known to take."""
        mailbox.on_request = self._hurry

    def train(self) -> Finished | Interrupted | Restart:
        """Run the trial to its end or to an interruption, and return which it was."""
        job = self.job
        if not isinstance(job.task, VideoTask):
            raise TypeError(f"this worker trains video models, and the task is of the kind {job.task.kind!r}")
        config = TrainingConfig.from_flat(job.config)
        check_roots(job.task.dataset, job.data_roots, job.remote_roots)
        with self.world.in_turn():
            dataset = open_dataset(
                job.task.dataset.of_trial(config.seed),
                cache_dir=job.cache_dir,
                progress=self.pulse.prepared,
            )
        if job.nodes > 1:
            self._require_same(dataset)
        if job.refit:
            dataset = dataset.with_validation_trained()
        self._dataset = dataset
        if dataset.problems:
            first = dataset.problems[0]
            count, word = len(dataset.problems), job.task.clip_word
            _log.warning("%d %ss are left out, such as %s (%s)", count, word, first.path, first.note)
        while True:
            try:
                return self._train_from_newest(config, dataset)
            except TornUpdateError as error:
                problem = str(error)
            # Only here, when the exception and all that its traceback refers to is gone, is their memory free.
            self._restart_smaller(problem)
            if self.world.size > 1:
                assert self._smaller is not None  # noqa: S101 - it was just made
                return Restart(plan=self._smaller.to_state())

    def _require_same(self, dataset: Dataset) -> None:
        """Check that each machine of the group reads the same data set.

        Raises:
            SetupError: they differ.
        """
        (leader, expected), *others = self.world.gathered((socket.gethostname(), dataset.version))
        for host, version in others:
            if version != expected:
                raise SetupError(
                    f"the machines of the group read different data sets: {leader} has version {expected}, {host} "
                    f"version {version}; give all of them the same files"
                )

    def _train_from_newest(self, config: TrainingConfig, dataset: Dataset) -> Finished | Interrupted:
        """Train from the newest resume point, or from the beginning where there is none to continue from."""
        job = self.job
        minutes = job.task.timeout_minutes
        trainer = self._trainer = Trainer(
            config,
            epochs=job.task.epochs,
            dataset=dataset,
            runtime=self.runtime,
            time_limit_seconds=None if minutes is None else minutes * 60,
            weights=WeightsFolders(
                roots=tuple(job.weights_roots), downloads=job.cache_dir / "weights", expected=job.weights
            ),
            plan=None if job.memory_plan is None else MemoryPlan.from_state(job.memory_plan),
            measures=job.measures,
            world=self.world,
        )
        if self.mailbox.request is not None:  # which may have come before there was a trainer
            trainer.hurry()
        self._print(f"environment: {json.dumps(describe(self.runtime, precision=trainer.precision), default=str)}")
        for one in trainer.weights:
            self._print(*one.log_lines())
        started_from = self._resume(trainer)
        if self.world.is_first:
            self._curve_files.restart(trainer.curve)
        if self._smaller is not None:
            trainer.plan = self._smaller
        self.events.send(
            Started(
                epoch=trainer.epoch,
                batch=trainer.batch,
                epochs=trainer.epochs,
                checkpoint=None if started_from is None else str(started_from),
                measurements=[self._measurement(r) for r in trainer.curve if r.epoch > job.epochs_reported],
                confusion=_confusion(trainer),
                weights=[_loaded(one) for one in trainer.weights],
                dataset_version=trainer.identity.dataset_version,
            )
        )
        self.pulse.trains(trainer)
        completed = trainer.run(interrupted=self._interrupted, epoch_done=self._epoch_done)
        return self._end(trainer, completed)

    def _restart_smaller(self, problem: str) -> None:
        """Have the next run continue from the newest resume point with a plan of less memory."""
        trainer = self._trainer
        assert trainer is not None  # noqa: S101 - it raised the error
        self.beside.drain()
        self._smaller = trainer.smaller_plan(problem)
        self._resumes = True
        self.pulse.trains(Standstill(steps=trainer.steps))
        self._trainer = None  # its memory is needed for the next, so that nothing may refer to it

    def facts(self) -> dict[str, Any]:
        """Return what every last event carries, as far as it is known."""
        trainer = self._trainer
        # 0 before CUDA has allocated anything, which the protocol does not take.
        facts: dict[str, Any] = {"peak_memory_bytes": max(peak_memory_bytes(self.runtime), self._peak_bytes) or None}
        if self._dataset is not None:
            facts["dataset_version"] = self._dataset.version
        if trainer is not None:
            plan = None if trainer.plan is None else trainer.plan.to_state()
            facts["environment"] = {
                **describe(self.runtime, precision=trainer.precision),
                "memory_plan": plan,
                "compiled": trainer.compiled,
            }
            if self._dataset is not None:
                facts["environment"]["dataset"] = _clips_of(self._dataset)
        return facts

    def _resume(self, trainer: Trainer) -> Path | None:
        if not self._resumes:
            return None
        found = self._newest(trainer, self._resume_points)
        if found is None:
            if self.job.checkpoint is not None:
                _log.warning(
                    "the checkpoint %s cannot be used here; the trial starts from the beginning", self.job.checkpoint
                )
            return None
        path, state = found
        if path.parent == self.folder.path:
            self.folder.run = run_in(path.name) or ""  # the run goes on, and removes what it replaces
        trainer.load_state(state)
        return path

    def _newest(self, trainer: Trainer, points: Callable[[], list[ResumePoint]]) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest of these resume points that can be used: of several ranks, the one that the first takes."""
        found = None
        if self.world.is_first:
            found = checkpoint.newest_usable([point.path for point in points()], trainer.identity)
        if self.job.nodes > 1:  # the others need not see the disk of the first
            sent = self.world.of_first(lambda: None if found is None else (str(found[0]), found[1]))
            return None if sent is None else (Path(sent[0]), sent[1])
        named = self.world.of_first(lambda: None if found is None else str(found[0]))
        if named is None or self.world.is_first:
            return found
        path = Path(named)
        if (same := checkpoint.newest_usable([path], trainer.identity)) is None:
            raise CheckpointError(f"the checkpoint {path} cannot be read by each process of this trial")
        return same

    def _resume_points(self) -> list[ResumePoint]:
        """Return those of this run, and those of the API's checkpoint in its folder, newest first."""
        points = set(self.folder.resume_points())
        if self.job.resume and self.job.checkpoint is not None:
            path, roots = Path(self.job.checkpoint), self.job.checkpoint_roots
            for folder in [path.parent] if roots is None else folders_of(self.job.checkpoint, roots):
                other = TrialFolder(folder, attempt=self.job.attempt, run=run_in(path.name) or "")
                points |= set(other.resume_points())
        return sorted(points, reverse=True)

    def _hurry(self) -> None:
        trainer = self._trainer
        if trainer is not None:
            trainer.hurry()

    def _interrupted(self) -> bool:
        self.beside.check()
        trainer = self._trainer
        ended = trainer is not None and trainer.batch == 0 and trainer.epoch == self.job.stop_after
        return ended or self.mailbox.request is not None

    def _epoch_done(self, result: EpochResult) -> None:
        """Write the checkpoint and report the epoch, at once or, if that takes long, while the next one trains.

        What is reported has a checkpoint on disk in both cases. A decision about an epoch whose checkpoint is written
        beside the training comes within the next epoch.
        """
        trainer = self._trainer
        assert trainer is not None  # noqa: S101 - the trainer is the caller
        state = trainer.state()
        self._peak_bytes = max(self.world.gathered(peak_memory_bytes(self.runtime)))
        done = EpochDone(
            measurement=self._measurement(result),
            checkpoint=None,
            peak_memory_bytes=self._peak_bytes,
            confusion=_confusion(trainer) if trainer.is_validated else None,
        )
        if not self.world.is_first:
            return
        kept, epochs = self._kept(trainer), trainer.epochs
        if is_large(state) and result.epoch < epochs:
            self.beside.drain()  # before the copy, so that there are never two of them
            copy = on_host(state)
            self.beside.start(lambda: self._close_epoch(result, copy, kept, done, epochs))
            return
        self.beside.drain()
        self._close_epoch(result, state, kept, done, epochs)
        if result.epoch < epochs:
            self.mailbox.wait_for_answer(result.epoch, ANSWER_SECONDS)

    def _close_epoch(
        self, result: EpochResult, state: dict[str, Any], kept: Collection[FileKind], done: EpochDone, epochs: int
    ) -> None:
        """Write what stays of an epoch, and report it when it is on disk."""
        self._write_kept(state, kept)  # before the resume point: what continues from that one does not come here again
        path = self.folder.write_resume_point(checkpoint.writer(state), epoch=state["epoch"], batch=state["batch"])
        measured = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
        self._print(f"epoch {result.epoch}/{epochs}: {measured}")
        self._curve_files.add(result)  # after the checkpoint: a run that is resumed from it has this epoch
        self.events.send(done.model_copy(update={"checkpoint": str(path)}))

    def _kept(self, trainer: Trainer) -> set[FileKind]:
        """Return as what the weights of this epoch are to stay beside those of the last."""
        policy = self.job.checkpoints or CheckpointPolicy()
        best = (trainer.identity.config.keep_best_epoch or policy.best) and is_best(trainer.curve)
        # Without a validation the statistics of batch norm may not be those of the weights.
        nth = policy.every is not None and trainer.epoch % policy.every == 0 and trainer.is_validated
        return {kind for kind, stays in ((FileKind.BEST, best), (FileKind.NTH, nth)) if stays}

    def _write_kept(self, state: Mapping[str, Any], kept: Collection[FileKind]) -> None:
        if not kept:
            return
        write = checkpoint.writer(final_state(state))
        if FileKind.BEST in kept:
            self.folder.write_best(write, epoch=state["epoch"])
        if FileKind.NTH in kept:
            self.folder.write_nth(write, epoch=state["epoch"])

    def _save(self, trainer: Trainer) -> Path:
        write = checkpoint.writer(trainer.state())
        return Path(
            self.world.of_first(
                lambda: str(self.folder.write_resume_point(write, epoch=trainer.epoch, batch=trainer.batch))
            )
        )

    def _end(self, trainer: Trainer, completed: bool) -> Finished | Interrupted:
        self.beside.drain()
        request = self.world.of_first(lambda: None if (asked := self.mailbox.request) is None else asked.action)
        if not completed and request is not None and request != "stop":
            return Interrupted(checkpoint=str(self._save(trainer)), **self.facts())
        state = self._last_whole_epoch(trainer)
        if state is not None and not trainer.is_validated:
            trainer.load_state(state)
            trainer.validate_last_epoch()
            if self.world.is_first:
                self._curve_files.restart(trainer.curve)
            state = trainer.state()
            if self.world.is_first:
                self._write_kept(state, self._kept(trainer))
        path = None
        if state is not None:
            write = checkpoint.writer(final_state(state))
            path = self.world.of_first(lambda: str(self.folder.write_final(write)))
        return Finished(
            outcome="completed" if completed else "stopped",
            metrics=trainer.curve[-1].metrics if trainer.curve else {},
            checkpoint=path,
            confusion=_confusion(trainer),
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
        end = (trainer.epoch, 0)
        found = self._newest(
            trainer, lambda: [point for point in self._resume_points() if (point.epoch, point.batch) == end]
        )
        return None if found is None else found[1]

    def _measurement(self, result: EpochResult) -> Measurement:
        # A GPU is occupied for as long as the epoch lasts, whether or not its kernels run.
        return Measurement(
            step=result.epoch,
            metrics=result.metrics,
            wall_seconds=result.seconds,
            gpu_seconds=self.world.size * result.seconds,
        )

    def _print(self, *lines: str) -> None:
        if self.world.is_first:
            _print(*lines)


def _print(*lines: str) -> None:
    """Print into the log of the attempt, which the worker sends to the API."""
    print(*lines, sep="\n", flush=True)


def _confusion(trainer: Trainer) -> Confusion | None:
    return confusion_of(trainer.classified, trainer.identity.class_names)


def _loaded(weights: StartingWeights) -> LoadedWeights:
    report = weights.report
    return LoadedWeights(
        source=weights.source,
        stream=weights.stream,
        sha256=weights.sha256,
        layout=report.layout,
        network=report.network,
        loaded=len(report.loaded),
        adapted=_tensors(report.adapted),
        reset=_tensors(report.reset),
        kept=_tensors(report.kept),
        dropped=_tensors(report.dropped),
        notes=list(report.notes),
    )


def _tensors(names: tuple[str, ...]) -> Tensors:
    return Tensors(count=len(names), first=list(names[:8]))


class _WarningsToWorker(logging.Handler):
    """Sends warnings to the log of the worker, where a person sees them."""

    def __init__(self, events: EventPipe) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.send(Note(text=record.getMessage(), warning=True))


def _clips_of(dataset: Dataset) -> dict[str, Any]:
    """Return how many clips are used for what, and what is left out and why, with a few examples."""
    first = dataset.problems[:_PROBLEMS_NAMED]
    return {
        "train": dataset.num_fit,
        "validation": len(dataset.validation_clips),
        "left_out": len(dataset.problems),
        "reasons": dict(Counter(one.status for one in dataset.problems)),
        "examples": [
            {"path": one.path[-_PROBLEM_CHARACTERS:], "note": one.note[:_PROBLEM_CHARACTERS]} for one in first
        ],
    }
