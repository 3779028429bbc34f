"""Stand-ins for everything around the lease code: clock, inbox, API, training process, reporter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from hpo.protocol import (
    ClaimRequest,
    Confusion,
    FinishRequest,
    Lease,
    LoadedWeights,
    LogRequest,
    Measurement,
    Progress,
    ReleaseRequest,
    ReportReply,
    ReportRequest,
    Tensors,
)
from hpo.trial import Decision
from workers.lease.client import ApiClient, NoWork
from workers.lease.inbox import Inbox, Message
from workers.lease.reporter import Answer, Delivered, Reporter
from workers.process.child import Child, ProcessExited, StandbyProcess
from workers.process.messages import Command, EpochDone, Event, Finished, Job, Started

from ..tiny import tiny_task

LEASE_ID = UUID(int=7)
EPOCHS = 4
HEARTBEAT_SECONDS = 15.0


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def make_lease(**changes: Any) -> Lease:
    """Return the lease of trial 9 (number 3 of the study `demo`), first attempt."""
    minutes = changes.pop("timeout_minutes", None)
    fields: dict[str, Any] = {
        "study": "demo",
        "study_id": 5,
        "trial_id": 9,
        "number": 3,
        "attempt": 1,
        "lease_id": LEASE_ID,
        "params": {"lr": 0.01},
        "config": {"lr": 0.01},
        "task": tiny_task(Path("/videos"), epochs=EPOCHS, timeout_minutes=minutes),
        "checkpoint": None,
        "epochs_done": 0,
        "lease_seconds": 60.0,
        "heartbeat_seconds": HEARTBEAT_SECONDS,
    }
    return Lease(**{**fields, **changes})


def measurement(step: int) -> Measurement:
    """Return what an epoch measured."""
    metrics = {"val_top1": step / 10, "val_loss": 1.0 / step, "epoch_seconds": 2.0}
    return Measurement(step=step, metrics=metrics, wall_seconds=2.0, gpu_seconds=2.0)


def started(**changes: Any) -> Started:
    """Return the event that training begins, from the beginning if nothing else is said."""
    fields: dict[str, Any] = {"epoch": 0, "batch": 0, "epochs": EPOCHS, "checkpoint": None, "measurements": []}
    return Started(**{**fields, **changes})


def loaded_weights(**changes: Any) -> LoadedWeights:
    """Return what a training started from."""
    none = Tensors(count=0, first=[])
    fields: dict[str, Any] = {
        "source": "k400.pth",
        "sha256": "1" * 64,
        "layout": "PySlowFast",
        "loaded": 318,
        "adapted": none,
        "reset": Tensors(count=2, first=["head.bias", "head.weight"]),
        "kept": none,
        "dropped": none,
    }
    return LoadedWeights(**{**fields, **changes})


def confusion(step: int) -> Confusion:
    """Return the confusion matrix of an epoch."""
    return Confusion(step=step, class_names=["a", "b"], videos=[3, 3], cells=[(0, 0, 3), (1, 0, 3)])


def epoch_done(step: int) -> EpochDone:
    """Return the event that an epoch is over."""
    measured, path = measurement(step), f"/c/e{step}.pt"
    return EpochDone(measurement=measured, checkpoint=path, peak_memory_bytes=1000 + step, confusion=confusion(step))


def finished(outcome: str = "completed", **changes: Any) -> Finished:
    """Return the result of a training process."""
    fields: dict[str, Any] = {
        "outcome": outcome,
        "metrics": {"val_top1": 0.4},
        "checkpoint": "/c/final.pt",
        "dataset_version": "v1",
        "environment": {"threads": 1},
        "peak_memory_bytes": 2000,
    }
    return Finished(**{**fields, **changes})


class ScriptedInbox(Inbox):
    """Yields a script of messages and of seconds in which nothing arrives; it never waits, the clock moves instead.

    What is put while the script runs comes after it.
    """

    def __init__(self, clock: Clock, script: Iterable[Message | float]) -> None:
        super().__init__()
        self._clock = clock
        self._script: deque[Message | float] = deque(script)
        self.leases_asked_for: set[UUID | None] = set()
        self.put_with: list[tuple[Message, UUID | None]] = []

    def put(self, message: Message, *, lease_id: UUID | None = None) -> None:
        self.put_with.append((message, lease_id))
        self._script.append(message)

    def get(self, *, lease_id: UUID | None, timeout_seconds: float | None) -> Message | None:
        self.leases_asked_for.add(lease_id)
        while self._script and isinstance(quiet := self._script[0], float):
            if timeout_seconds is not None and timeout_seconds <= quiet:
                self._script[0] = quiet - timeout_seconds
                self._clock.now += timeout_seconds
                return None
            self._script.popleft()
            self._clock.now += quiet
            timeout_seconds = None if timeout_seconds is None else timeout_seconds - quiet
        if self._script:
            message = self._script.popleft()
            assert not isinstance(message, float)
            return message
        assert timeout_seconds is not None, "the run would wait for ever"
        self._clock.now += timeout_seconds
        return None


class FakeChild(Child):
    """A training process that sends `events` as soon as it has its job, and notes what it is asked for."""

    def __init__(self, *events: Event | ProcessExited, printed: str = "") -> None:
        self.events = events
        self.printed = printed
        self.job: Job | None = None
        self.deliver: Callable[[Event | ProcessExited], None] | None = None
        self.commands: list[Command] = []
        self.patience: list[float] = []
        """Of every call of `end`, in seconds."""
        self.when_assigned: Callable[[], None] = lambda: None
        """Called when the process has its job and has sent its events."""

    @property
    def pid(self) -> int:
        return 4711

    @property
    def actions(self) -> list[str]:
        """The commands without their epochs."""
        return [command.action for command in self.commands]

    def assign(self, job: Job, log: Path, deliver: Callable[[Event | ProcessExited], None]) -> None:
        self.job, self.log, self.deliver = job, log, deliver
        for event in self.events:
            deliver(event)
        self.when_assigned()

    def send(self, command: Command) -> None:
        self.commands.append(command)

    def end(self, *, patience_seconds: float = 0.0) -> None:
        self.patience.append(patience_seconds)

    def log_tail(self) -> str:
        return self.printed


class FakeStandby(StandbyProcess):
    """Provides children made beforehand, and notes every call."""

    def __init__(self, *children: FakeChild) -> None:
        self._children = deque(children)
        self.calls: list[str] = []

    def prepare(self) -> None:
        self.calls.append("prepare")

    def take(self) -> Child:
        self.calls.append("take")
        return self._children.popleft()

    def close(self) -> None:
        self.calls.append("close")


class FakeReporter(Reporter):
    """Notes what it is given; accepts the last message at once, unless the API is `unavailable`."""

    def __init__(self, answer: Callable[[Answer], None], *, unavailable: bool = False) -> None:
        self._hand_on = answer
        self._accepts = not unavailable
        self.calls: list[str] = []
        self.reports: list[tuple[list[int], str | None, int | None]] = []
        """Steps, checkpoint and peak memory of each report."""
        self.confusions: list[Confusion | None] = []
        self.weights: list[LoadedWeights] | None = None
        self.dataset_version: str | None = None
        self.progress: list[Progress] = []
        self.last: list[FinishRequest | ReleaseRequest] = []

    def start(self) -> None:
        self.calls.append("start")

    def report(
        self,
        measurements: list[Measurement],
        *,
        checkpoint: str | None,
        peak: int | None = None,
        confusion: Confusion | None = None,
    ) -> None:
        self.confusions.append(confusion)
        self.reports.append(([each.step for each in measurements], checkpoint, peak))

    def show(self, progress: Progress) -> None:
        self.progress.append(progress)

    def report_start(self, weights: list[LoadedWeights], dataset_version: str | None) -> None:
        self.weights, self.dataset_version = weights, dataset_version

    def deliver(self, last: FinishRequest | ReleaseRequest) -> None:
        self.last.append(last)
        if self._accepts:
            self._hand_on(Delivered())

    def close(self) -> None:
        self.calls.append("close")


Reply = Lease | NoWork | Exception


class FakeApi(ApiClient):
    """Answers from scripts and notes every call.

    `claims` are the answers to claims, one after the other; a function is called for its answer. `reports` are the
    answers to reports, after which every report is answered with `continue`; likewise `endings` of finish and release.
    """

    def __init__(
        self,
        *,
        claims: Iterable[Reply | Callable[[], Reply]] = (),
        reports: Iterable[Decision | Exception] = (),
        endings: Iterable[Exception] = (),
    ) -> None:
        self._claims = deque(claims)
        self._reports = deque(reports)
        self._endings = deque(endings)
        self.claimed: list[ClaimRequest] = []
        self.calls: list[ReportRequest | FinishRequest | ReleaseRequest] = []
        """All calls about trials, those that failed included."""
        self.trial_ids: set[int] = set()
        self.waits: list[float] = []
        """How long each claim may have been held."""
        self.parts: list[LogRequest] = []
        """Parts of logs, those that were not taken included."""
        self.log_answers: deque[Exception | None] = deque()
        """Answers to them: an error, or None; after that each is taken."""
        self.notice: str | None = None
        """What the API says to a report with the version of a data set."""
        self.during_report: Callable[[], None] | None = None
        """Called once, while a report is under way."""

    def claim(self, request: ClaimRequest, *, wait_seconds: float = 0.0) -> Lease | NoWork:
        self.claimed.append(request)
        self.waits.append(wait_seconds)
        reply = self._claims.popleft()
        if callable(reply):
            reply = reply()
        if isinstance(reply, Exception):
            raise reply
        return reply.model_copy(update={"lease_id": request.lease_id}) if isinstance(reply, Lease) else reply

    def report(self, trial_id: int, request: ReportRequest) -> ReportReply:
        self._note(trial_id, request)
        if self.during_report is not None:
            during, self.during_report = self.during_report, None
            during()
        reply = self._reports.popleft() if self._reports else Decision.CONTINUE
        if isinstance(reply, Exception):
            raise reply
        return ReportReply(decision=reply, notice=self.notice if request.dataset_version else None)

    def finish(self, trial_id: int, request: FinishRequest) -> None:
        self._end(trial_id, request)

    def release(self, trial_id: int, request: ReleaseRequest) -> None:
        self._end(trial_id, request)

    def append_log(self, trial_id: int, request: LogRequest) -> None:
        self.trial_ids.add(trial_id)
        self.parts.append(request)
        if self.log_answers and (answer := self.log_answers.popleft()) is not None:
            raise answer

    def _end(self, trial_id: int, request: FinishRequest | ReleaseRequest) -> None:
        self._note(trial_id, request)
        if self._endings:
            raise self._endings.popleft()

    def _note(self, trial_id: int, request: ReportRequest | FinishRequest | ReleaseRequest) -> None:
        self.trial_ids.add(trial_id)
        self.calls.append(request)

    @property
    def steps(self) -> list[list[int]]:
        """The steps of every report, in order."""
        return [[each.step for each in call.measurements] for call in self.calls if isinstance(call, ReportRequest)]
