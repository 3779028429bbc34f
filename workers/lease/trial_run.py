"""One trial, from its lease to the last call about it.

Everything that happens (events of the training process, answers of the API, signals) comes through one inbox to one
thread, which decides. What ends a trial, and what the API is told:

    result                      -> finish(completed | stopped)
    failure of the trial        -> finish(failed)
    paused, SIGTERM             -> release(paused | drained)
    process killed, disk full   -> release(crashed)
    cancelled                   -> release(drained), which ends a cancelled trial
    lease lost                  -> nothing: it is somebody else's
"""

from __future__ import annotations

import logging
import queue
import time
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from hpo.errors import HpoError
from hpo.protocol import FinishRequest, Lease, ReleaseRequest
from hpo.trial import Decision, FailureKind

from ..checkpoints.folder import TrialFolder
from ..process.child import Child, ProcessExited
from ..process.messages import Command, EpochDone, Event, Failed, Finished, Interrupted, Job, Note, Started, WorkerFault
from .client import ApiClient
from .reporter import Answer, Decided, Delivered, LeaseLost, Reporter, Unanswered

DRAIN_SECONDS = 15.0
"""What a training process gets to reach the next batch and write its checkpoint."""
HAND_IN_SECONDS = 8.0
"""What the API then gets to take the trial back: with DRAIN_SECONDS less than the usual 30 s before SIGKILL."""
EXIT_SECONDS = 10.0
"""What a training process that has sent its last message gets to end."""
TIME_LIMIT_GRACE_SECONDS = 60.0
"""A training process keeps its time limit by itself; after so much more it hangs."""
_log = logging.getLogger(__name__)
_COMMANDS: dict[Decision, Literal["stop", "pause"]] = {Decision.STOP: "stop", Decision.PAUSE: "pause"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """SIGTERM or SIGINT came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message and the lease that it is about; what is late from an earlier trial is told apart by it."""

    lease_id: UUID | None
    message: Event | ProcessExited | Answer | Stop


Inbox = queue.SimpleQueue[Envelope]
"""Simple, because a signal handler puts into it: the put of other queues may deadlock with an interrupted get."""


class TrialRun:
    """Runs one lease. After `run` the trial has been handed in, or is not ours any more."""

    def __init__(
        self, lease: Lease, *, job: Job, child: Child, folder: TrialFolder, client: ApiClient, inbox: Inbox
    ) -> None:
        self._lease = lease
        self._job = job
        self._child = child
        self._folder = folder
        self._inbox = inbox
        self._reporter = Reporter(client, lease, self._put)
        self._name = f"trial {lease.number} of {lease.study}"
        self._asked: Literal["", "stop", "pause", "drain"] = ""
        self._checkpoint = lease.checkpoint
        self._epoch = lease.epochs_done
        self._over = False
        self._training_ended = False
        self._has_result = False
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self.fatal: HpoError | None = None
        """Set when the API refuses this worker altogether."""

    def run(self) -> None:
        """Train, report, hand in."""
        again = f", attempt {self._lease.attempt}" if self._lease.attempt > 1 else ""
        _log.info("%s: claimed%s; %s", self._name, again, _params(self._lease.params))
        self._reporter.start()
        try:
            self._child.assign(self._job, self._folder.log, self._put)
            while not self._over:
                self._next()
        finally:
            self._child.end()
            self._reporter.close()

    def _put(self, message: Event | ProcessExited | Answer) -> None:
        self._inbox.put(Envelope(lease_id=self._lease.lease_id, message=message))

    def _next(self) -> None:
        deadlines = [at for at in (self._kill_at, self._give_up_at) if at is not None]
        wait = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        try:
            envelope = self._inbox.get(timeout=wait)
        except queue.Empty:
            self._deadline()
            return
        if envelope.lease_id in (None, self._lease.lease_id):
            self._handle(envelope.message)

    def _handle(self, message: Event | ProcessExited | Answer | Stop) -> None:
        match message:
            case Note():
                _log.log(logging.WARNING if message.warning else logging.INFO, "%s: %s", self._name, message.text)
            case Started():
                self._started(message)
            case EpochDone():
                self._epoch_done(message)
            case Decided():
                self._decided(message)
            case Unanswered():
                self._child.send(Command(action="carry_on", epoch=self._epoch))
            case Stop():
                self._drain()
            case Delivered():
                self._delivered()
            case LeaseLost():
                self._lease_lost(message)
            case ProcessExited():
                self._process_exited(message)
            case _:
                self._ended(message)

    def _started(self, started: Started) -> None:
        if started.checkpoint is not None:
            self._checkpoint = started.checkpoint
            _log.info("%s: goes on after epoch %d, batch %d", self._name, started.epoch, started.batch)
        if started.measurements:
            self._epoch = started.measurements[-1].step
            self._reporter.report(started.measurements, checkpoint=self._checkpoint)
        minutes = self._lease.task.timeout_minutes
        if minutes is not None and self._kill_at is None:
            self._kill_at = time.monotonic() + minutes * 60 + TIME_LIMIT_GRACE_SECONDS

    def _epoch_done(self, done: EpochDone) -> None:
        measurement = done.measurement
        self._epoch, self._checkpoint = measurement.step, done.checkpoint
        _log.info("%s: %s", self._name, _epoch_line(measurement.step, self._lease.task.epochs, measurement.metrics))
        self._reporter.report([measurement], checkpoint=done.checkpoint, peak=done.peak_memory_bytes)

    def _decided(self, decided: Decided) -> None:
        if self._training_ended:
            return
        if decided.decision is Decision.ABANDON:
            _log.info("%s: cancelled", self._name)
            self._end_training()
            self._release("drained", message="cancelled")
        elif decided.decision is Decision.CONTINUE:
            self._child.send(Command(action="carry_on", epoch=decided.epoch))
        elif not self._asked:
            self._ask(_COMMANDS[decided.decision])

    def _ask(self, action: Literal["stop", "pause", "drain"]) -> None:
        self._asked = action
        self._child.send(Command(action=action))

    def _drain(self) -> None:
        now = time.monotonic()
        self._give_up_at = now + DRAIN_SECONDS + HAND_IN_SECONDS
        if self._training_ended:
            return
        self._kill_at = now + DRAIN_SECONDS
        _log.info("%s: asked to stop; writing a checkpoint", self._name)
        if self._asked != "stop":  # a trial that is stopping for good has as little left to do
            self._ask("drain")

    def _deadline(self) -> None:
        now = time.monotonic()
        if self._give_up_at is not None and now >= self._give_up_at:
            _log.warning("%s: the API did not take it back; its lease will run out", self._name)
            self._over = True
        elif self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._end_training()
            if self._give_up_at is not None:
                self._release("drained", message="no checkpoint within the time to drain")
            else:
                self._finish_failed(FailureKind.TIMEOUT, "the trial passed its time limit and did not react to it")

    def _ended(self, last: Finished | Failed | Interrupted | WorkerFault) -> None:
        self._end_training(patience_seconds=EXIT_SECONDS)
        match last:
            case Finished() if last.metrics:
                _log.info("%s: %s, %s", self._name, last.outcome, _shown(last.metrics))
                self._finish(last.outcome, last, metrics=last.metrics, checkpoint=last.checkpoint)
            case Finished():  # stopped before anything was measured: there is no result to keep
                self._release("drained", message="stopped within the first epoch")
            case Failed():
                self._finish_failed(last.failure_kind, last.message, last)
            case Interrupted():
                self._checkpoint = last.checkpoint
                self._release("paused" if self._asked == "pause" else "drained")
            case WorkerFault():
                self._release("crashed", message=last.message)

    def _process_exited(self, gone: ProcessExited) -> None:
        if self._training_ended:
            return
        self._end_training()
        tail = self._child.log_tail()
        self._release("crashed", message=f"{gone}\n{tail}" if tail else str(gone))

    def _lease_lost(self, lost: LeaseLost) -> None:
        self._end_training()
        _log.warning("%s: dropped: %s", self._name, lost.reason)
        self.fatal = lost.fatal
        self._over = True

    def _delivered(self) -> None:
        if self._has_result:
            self._folder.remove_resume_points()
        self._over = True

    def _end_training(self, *, patience_seconds: float = 0.0) -> None:
        self._training_ended = True
        self._kill_at = None
        self._child.end(patience_seconds=patience_seconds)

    def _finish_failed(self, kind: FailureKind, message: str, last: Failed | None = None) -> None:
        _log.warning("%s: failed (%s): %s", self._name, kind, message.splitlines()[0])
        self._finish("failed", last, failure_kind=kind, failure_message=message)

    def _finish(
        self, outcome: Literal["completed", "stopped", "failed"], last: Finished | Failed | None, **rest: Any
    ) -> None:
        self._has_result = True
        known = {} if last is None else last.model_dump(include={"dataset_version", "environment", "peak_memory_bytes"})
        self._reporter.deliver(
            FinishRequest(attempt=self._lease.attempt, lease_id=self._lease.lease_id, outcome=outcome, **known, **rest)
        )

    def _release(self, reason: Literal["drained", "paused", "crashed"], *, message: str | None = None) -> None:
        first = f": {message.splitlines()[0]}" if message else ""
        _log.log(logging.WARNING if reason == "crashed" else logging.INFO, "%s: %s%s", self._name, reason, first)
        self._reporter.deliver(
            ReleaseRequest(
                attempt=self._lease.attempt,
                lease_id=self._lease.lease_id,
                reason=reason,
                message=message,
                checkpoint=self._checkpoint,
            )
        )


def _params(params: Any) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )


def _epoch_line(epoch: int, epochs: int, metrics: dict[str, float]) -> str:
    return f"epoch {epoch}/{epochs}  {_shown(metrics)}  {metrics['epoch_seconds']:.1f} s"


def _shown(metrics: dict[str, float]) -> str:
    """What a person looks at first; which of them the study is about is not the worker's to know."""
    return "  ".join(
        f"{name} {metrics[name]:.4f}" for name in ("val_top1", "val_loss", "train_loss") if name in metrics
    )
