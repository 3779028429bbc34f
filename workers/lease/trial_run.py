"""One trial, from its lease to the last call about it.

Everything that happens (events of the training process, answers of the API, signals) comes through one inbox to one
thread, which decides. What ends a trial, and what the API is told:

    result                        -> finish(completed | stopped)
    failure of the trial          -> finish(failed)
    pause decided, SIGTERM        -> release(paused | drained)
    fault of the machine          -> release(crashed) with what was wrong
    process killed, or it hangs   -> release(crashed)
    killed for its main memory    -> finish(failed), where it trains on the CPU
    cancelled                     -> release(drained), which ends a cancelled trial
    lease lost                    -> nothing: another worker may own the trial
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from hpo import traces
from hpo.errors import HpoError
from hpo.protocol import FinishRequest, Lease, Progress, ReleaseRequest
from hpo.trial import CUSTOM, Decision, FailureKind, Fault

from ..checkpoints.folder import TrialFolder
from ..device.main_memory import Shortage
from ..process.child import Child, ProcessExited
from ..process.messages import (
    Alive,
    Command,
    EpochDone,
    Failed,
    Finished,
    Interrupted,
    Job,
    Note,
    Restart,
    Started,
    WorkerFault,
)
from .inbox import Inbox, Message, Shutdown
from .log_lines import ProgressLines, epoch_line, metrics_line, params_line, progress_of, weights_line
from .reporter import Decided, Delivered, LeaseLost, Reporter, Unanswered
from .watchdog import Patience, Watchdog

DRAIN_SECONDS = 15.0
"""The time that a training process has to reach the next batch and write its checkpoint."""
HAND_IN_SECONDS = 8.0
"""The time that the API then has to accept the release. With DRAIN_SECONDS less than the 30 s that most schedulers
leave between SIGTERM and SIGKILL."""
EXIT_SECONDS = 10.0
"""The time that a training process has to exit after its last message."""
TIME_LIMIT_GRACE_SECONDS = 60.0
"""A training process watches its time limit itself; this long after the limit it is taken to hang."""
_log = logging.getLogger(__name__)


class TrialRun:
    """Runs one lease. After `run` the trial is handed in, or it is not this worker's any more."""

    def __init__(
        self,
        lease: Lease,
        *,
        job: Job,
        child: Child,
        folder: TrialFolder,
        reporter: Reporter,
        inbox: Inbox,
        patience: Patience | None = None,
        part_of: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare. `reporter` puts its answers into `inbox`; `clock` returns seconds.

        `part_of` is the span of this attempt, where trials are traced.
        """
        self._lease = lease
        self._job = job
        self._child = child
        self._folder = folder
        self._reporter = reporter
        self._inbox = inbox
        self._clock = clock
        self._watchdog = Watchdog(patience or Patience(), clock())
        self._progress = ProgressLines(clock())
        self._name = f"trial {lease.number} of {lease.study}"
        self._request: Literal["stop", "pause", "drain"] | None = None
        """What the training process was asked to end with."""
        self._checkpoint = lease.checkpoint
        self._epoch = lease.epochs_done
        self._part_of = part_of
        self._epoch_began = time.time()
        """As a Unix time, for traces."""
        self._training_ended = False
        self._has_result = False
        self._is_too_large = False
        self._is_over = False
        self._kill_at: float | None = None
        """When the training process is killed, by the clock."""
        self._give_up_at: float | None = None
        """When the worker ends although the API did not accept the last message, by the clock."""
        self.fatal: HpoError | None = None
        """Set when the API refuses the worker's token."""
        self.fault: Fault | None = None
        """Set when the trial was given back because this machine failed, or may have."""

    def run(self) -> None:
        """Train, report, and hand in the result or give the trial back."""
        again = f", attempt {self._lease.attempt}" if self._lease.attempt > 1 else ""
        _log.info("%s: claimed%s; %s", self._name, again, params_line(self._lease.params))
        self._reporter.start()
        try:
            put = partial(self._inbox.put, lease_id=self._lease.lease_id)
            try:
                self._child.assign(self._job, self._folder.log, put)
            except OSError as error:
                self._end_training()
                self._give_back(Fault.STORAGE, f"the folder of the trial cannot be written ({error})")
            while not self._is_over:
                self._handle_next()
        finally:
            self._child.end()
            self._reporter.close()

    @property
    def epoch(self) -> int:
        """The epochs that are done, those of earlier attempts included."""
        return self._epoch

    def _handle_next(self) -> None:
        deadlines = [at for at in (self._kill_at, self._give_up_at) if at is not None]
        if not self._training_ended:
            deadlines.append(self._clock() + self._watchdog.tick_seconds)
        wait_seconds = max(0.0, min(deadlines) - self._clock()) if deadlines else None
        message = self._inbox.get(lease_id=self._lease.lease_id, timeout_seconds=wait_seconds)
        self._watchdog.passed(self._clock())
        if message is None:
            self._check_deadlines()
        else:
            self._handle(message)
        # After the message: what waited in the inbox while this process could not run counts too.
        if not self._training_ended and (problem := self._watchdog.problem()) is not None:
            self._end_training()
            self._give_back(Fault.HANG, problem)

    def _handle(self, message: Message) -> None:
        match message:
            case Alive() | Note() | Started() | EpochDone():
                self._on_life(message)
            case Decided():
                self._on_decided(message)
            case Unanswered():
                self._child.send(Command(action="continue", epoch=self._epoch))
            case Shutdown():
                self._drain()
            case Delivered():
                self._on_delivered()
            case LeaseLost():
                self._on_lease_lost(message)
            case ProcessExited():
                self._on_process_exited(message)
            case Restart():
                pass  # for the process that started the ranks, which has done so
            case _:
                self._on_last_event(message)

    def _on_life(self, event: Alive | Note | Started | EpochDone) -> None:
        """Take an event that does not end the training."""
        self._watchdog.heard(event if isinstance(event, Alive) else None)
        match event:
            case Alive():
                if event.progress is not None:
                    self._on_progress(progress_of(event.progress))
            case Note():
                _log.log(logging.WARNING if event.warning else logging.INFO, "%s: %s", self._name, event.text)
            case Started():
                self._on_started(event)
            case EpochDone():
                self._on_epoch_done(event)

    def _on_progress(self, progress: Progress) -> None:
        self._reporter.show(progress)
        if (line := self._progress.line(progress, self._clock())) is not None:
            _log.info("%s: %s", self._name, line)

    def _on_started(self, started: Started) -> None:
        if started.checkpoint is not None:
            self._checkpoint = started.checkpoint
            _log.info("%s: resumes after epoch %d, batch %d", self._name, started.epoch, started.batch)
        for loaded in started.weights:
            _log.info("%s: %s", self._name, weights_line(loaded))
        if started.weights or started.dataset_version is not None:
            self._reporter.report_start(started.weights, started.dataset_version)
        if started.measurements:
            self._epoch = started.measurements[-1].step
            self._reporter.report(started.measurements, checkpoint=self._checkpoint, confusion=started.confusion)
        minutes = self._lease.task.timeout_minutes
        if minutes is not None and self._kill_at is None:  # a drain has a deadline already, and it is nearer
            # A function looks at its time when it reports, which it need not do.
            grace = 0.0 if self._lease.task.kind == CUSTOM else TIME_LIMIT_GRACE_SECONDS
            self._kill_at = self._clock() + minutes * 60 + grace

    def _on_epoch_done(self, done: EpochDone) -> None:
        measurement = done.measurement
        self._epoch, self._checkpoint = measurement.step, done.checkpoint or self._checkpoint
        _log.info("%s: %s", self._name, epoch_line(measurement.step, self._lease.task.epochs, measurement.metrics))
        self._progress.epoch_over(self._clock())
        traces.record("epoch", self._part_of, began=self._epoch_began, epoch=measurement.step)
        self._epoch_began = time.time()
        self._reporter.report(
            [measurement], checkpoint=done.checkpoint, peak=done.peak_memory_bytes, confusion=done.confusion
        )

    def _on_decided(self, decided: Decided) -> None:
        if self._training_ended:
            return
        match decided.decision:
            case Decision.ABANDON:
                _log.info("%s: cancelled", self._name)
                self._end_training()
                self._release("drained", message="cancelled")
            case Decision.CONTINUE:
                self._child.send(Command(action="continue", epoch=decided.epoch))
            case Decision.STOP if self._request is None:
                self._ask_training_to("stop")
            case Decision.PAUSE if self._request is None:
                self._ask_training_to("pause")

    def _ask_training_to(self, action: Literal["stop", "pause", "drain"]) -> None:
        self._request = action
        self._child.send(Command(action=action))

    def _drain(self) -> None:
        now = self._clock()
        self._give_up_at = now + DRAIN_SECONDS + HAND_IN_SECONDS
        if self._training_ended:
            return
        self._kill_at = now + DRAIN_SECONDS
        _log.info("%s: asked to stop; writing a checkpoint", self._name)
        # A trial that was stopped early ends just as soon, and with a result.
        if self._request != "stop":
            self._ask_training_to("drain")

    def _check_deadlines(self) -> None:
        now = self._clock()
        if self._give_up_at is not None and now >= self._give_up_at:
            _log.warning("%s: the API did not accept the last message; the lease will expire", self._name)
            self._is_over = True
        elif self._kill_at is not None and now >= self._kill_at:
            self._end_training()
            if self._give_up_at is not None:
                self._release("drained", message="no checkpoint was written in the time for draining")
            else:
                minutes = self._lease.task.timeout_minutes or 0.0
                message = f"the trial passed its time limit of {minutes:g} minutes and was ended"
                self._finish_failed(FailureKind.TIMEOUT, message)

    def _on_last_event(self, last: Finished | Failed | Interrupted | WorkerFault) -> None:
        if self._training_ended:
            return  # sent before the process was killed; the API is being told why that was done
        self._end_training(patience_seconds=EXIT_SECONDS)
        match last:
            case Finished() if last.metrics:
                _log.info("%s: %s, %s", self._name, last.outcome, metrics_line(last.metrics))
                self._finish(last.outcome, last, metrics=last.metrics, checkpoint=last.checkpoint)
            case Finished():  # stopped before anything was measured: there is no result to keep
                self._release("drained", message="stopped within the first epoch")
            case Failed():
                self._finish_failed(last.failure_kind, last.message, last)
            case Interrupted():
                self._checkpoint = last.checkpoint or self._checkpoint
                self._release("paused" if self._request == "pause" else "drained")
            case WorkerFault():
                self._give_back(last.fault, last.message)

    def _on_process_exited(self, exited: ProcessExited) -> None:
        if self._training_ended:
            return
        self._end_training()
        tail = self._child.log_tail()
        message = f"{exited}\n{tail}" if tail else str(exited)
        if exited.shortage is Shortage.ITSELF and self._job.device == "cpu":
            failed = Failed(failure_kind=FailureKind.OOM, message=message, peak_memory_bytes=exited.peak_bytes)
            self._finish_failed(failed.failure_kind, failed.message, failed)
        else:
            self._give_back(exited.fault, message)

    def _give_back(self, fault: Fault, message: str) -> None:
        self.fault = fault
        self._release("crashed", message=message, fault=fault)

    def _on_lease_lost(self, lost: LeaseLost) -> None:
        self._end_training()
        _log.warning("%s: dropped: %s", self._name, lost.reason)
        self.fatal = lost.fatal
        self._is_over = True

    def _on_delivered(self) -> None:
        # A trial that did not fit may continue on a larger GPU, from its last checkpoint.
        if self._has_result and not self._is_too_large:
            try:
                self._folder.remove_resume_points()
            except OSError as error:  # the result is delivered
                _log.warning("%s: its last checkpoints stay in %s (%s)", self._name, self._folder.path, error)
        self._is_over = True

    def _end_training(self, *, patience_seconds: float = 0.0) -> None:
        self._training_ended = True
        self._kill_at = None
        self._child.end(patience_seconds=patience_seconds)

    def _finish_failed(self, kind: FailureKind, message: str, last: Failed | None = None) -> None:
        _log.warning("%s: failed (%s): %s", self._name, kind, _first_line(message))
        self._is_too_large = kind is FailureKind.OOM
        self._finish("failed", last, failure_kind=kind, failure_message=message)

    def _finish(
        self, outcome: Literal["completed", "stopped", "failed"], last: Finished | Failed | None, **rest: Any
    ) -> None:
        self._has_result = True
        carried = {"dataset_version", "environment", "peak_memory_bytes", "confusion"}
        known = {} if last is None else last.model_dump(include=carried)
        self._reporter.deliver(
            FinishRequest(attempt=self._lease.attempt, lease_id=self._lease.lease_id, outcome=outcome, **known, **rest)
        )

    def _release(
        self, reason: Literal["drained", "paused", "crashed"], *, message: str | None = None, fault: Fault | None = None
    ) -> None:
        level = logging.WARNING if reason == "crashed" else logging.INFO
        _log.log(level, "%s: %s", self._name, f"{reason}: {_first_line(message)}" if message else reason)
        self._reporter.deliver(
            ReleaseRequest(
                attempt=self._lease.attempt,
                lease_id=self._lease.lease_id,
                reason=reason,
                message=message,
                checkpoint=self._checkpoint,
                fault=fault,
            )
        )


def _first_line(message: str) -> str:
    return message.partition("\n")[0]
