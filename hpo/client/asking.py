"""Ask and tell: a program of one's own takes trials of a study, runs them as it likes, and tells what came of them.

A trial that was asked for is leased, as by a worker: a thread of this program keeps the lease while the trial runs.
When the program ends, by SIGTERM too, its trials are given back at once. When it is killed, the lease ends by itself,
and the trial is given out again as the study's `retry` allows.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar
from uuid import uuid4

from ..errors import ConflictError, HpoError, NotFoundError, SetupError, StaleLeaseError, StoreUnavailableError
from ..trial import Decision
from . import calls, leases
from .asked_trial import AskedTrial
from .ending import close_at_end
from .http import Client
from .leases import Lease, NoTrial
from .replies import StudyDetail
from .steps import Call
from .watching import ENDED

T = TypeVar("T")
State = Literal["completed", "stopped", "failed", "paused", "released"]
HELD_SECONDS: Final = 2.0
"""How long the service may hold the question for a trial."""
PATIENCE_SECONDS: Final = 300.0
"""How long the service may be away before its error is raised."""
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


class Study:
    """A study of the kind `custom`, from which this program takes trials. Use it in a `with` block, or close it.

    Safe to use from several threads. Any number of programs, on any machines, may ask one study at the same time.
    """

    def __init__(self, client: Client, name: str) -> None:
        """Look the study up.

        Raises:
            NotFoundError: there is no such study.
            SetupError: it is of another kind: workers train its trials.
        """
        self.client = client
        self.name = name
        found = client.study(name)
        self._spec = found["spec"]
        self._kind = str(self._spec["task"].get("kind", "video"))
        if self._kind != "custom":
            raise SetupError(
                f"study {name!r} trains {self._kind} models, which `hpo-worker` does; only trials of a study with "
                "`task: {kind: custom}` can be asked for"
            )
        self._heartbeat_seconds = 15.0
        self._begin()
        close_at_end(self)

    def _begin(self) -> None:
        """Hold no trial yet, as this process."""
        self._pid = os.getpid()
        self._open: dict[str, AskedTrial] = {}
        self._slots: set[int] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._start_id = secrets.token_hex(8)

    def _leave_to_parent(self) -> None:
        """After a fork, leave the trials that were asked for before it to the parent, which keeps their leases."""
        if self._pid != os.getpid():
            self._begin()

    def __repr__(self) -> str:
        return f"Study({self.name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the trials that were asked for and not told, without a retry being counted, and end the thread."""
        self._leave_to_parent()
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
        for trial in [] if self.client.is_closed else list(self._open.values()):
            try:
                self.client.run(leases.release(trial.lease, "drained", checkpoint=trial.checkpoint))
            except (StaleLeaseError, NotFoundError, StoreUnavailableError) as error:
                _log.info("trial %d was not given back: %s", trial.number, error)
            self._forget(trial)

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of the study, as it was when this was made."""
        return self._spec

    @property
    def state(self) -> str:
        """What the study is now: `active`, `paused`, `completed`, `stopped` or `failed`."""
        return self.details()["state"]

    def details(self) -> StudyDetail:
        """Return the study as it is now."""
        return self.carry_out(calls.study(self.name))

    # ---------------------------------------------------------------- ask and tell

    def ask(self, *, timeout: float | None = None) -> AskedTrial | None:
        """Return a trial to run, or None once the study gives no more: it has ended.

        It waits while there is none but may be one: the optimizer is at work, the study is paused, or the last trials
        of the budget run elsewhere and may come back.

        Args:
            timeout: seconds after which to give up.

        Raises:
            TimeoutError: there was no trial within `timeout` seconds.
        """
        self._leave_to_parent()
        deadline = None if timeout is None else time.monotonic() + timeout
        slot = self._take_slot()
        try:
            lease = self._claim(slot, deadline)
        except BaseException:  # Ctrl-C while it waits
            self._slots.discard(slot)
            raise
        if lease is None:
            self._slots.discard(slot)
            return None
        trial = AskedTrial(self, lease, slot)
        with self._lock:
            self._open[lease["lease_id"]] = trial
            self._heartbeat_seconds = lease["heartbeat_seconds"]
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = threading.Thread(target=self._keep, name=f"leases of {self.name}", daemon=True)
                self._keeper.start()
        return trial

    def tell(
        self,
        trial: AskedTrial,
        value: float | Mapping[str, float] | None = None,
        *,
        state: State | None = None,
        message: str | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        """End a trial.

        Args:
            value: its result: of the objective, or of several metrics by name. Without one, what it reported last.
            state: `completed`, `stopped` (early, with what was measured), `failed`, `paused` (it continues later from
                its checkpoint) or `released` (another asker begins it again). Without it, what the study decided:
                stopped where it said so, paused or given back where it wanted that, else completed. A result that is
                NaN or infinite fails the trial as diverged.
            message: why it failed; one sentence first.
            environment: what the export of the trial is to say about how it ran, as JSON; at most 64 KiB.

        Raises:
            StaleLeaseError: the trial is not this program's any more; what it found is not taken.
            ConflictError: there is no result, neither told nor reported.
        """
        trial.require_lease()
        metrics = trial.metrics if value is None else {**trial.metrics, **self._named(value)}
        chosen = state or _STATES[trial.decision]
        if chosen in ("paused", "released"):
            reason = "paused" if chosen == "paused" else "drained"
            call = leases.release(trial.lease, reason, checkpoint=trial.checkpoint, message=message)
        elif chosen == "failed":
            call = leases.finish(
                trial.lease,
                outcome="failed",
                failure_kind="error",
                failure_message=message or "told as failed",
                environment=dict(environment or {}),
            )
        elif any(not math.isfinite(one) for one in metrics.values()):
            shown = ", ".join(f"{name} is {one:g}" for name, one in metrics.items() if not math.isfinite(one))
            call = leases.finish(trial.lease, outcome="failed", failure_kind="diverged", failure_message=shown)
        elif not metrics:
            raise ConflictError(f"trial {trial.number} has no result: tell a value, or state='failed'")
        else:
            if value is not None and not trial.metrics:
                # The models learn from measurements: a result without any is one.
                trial.report(max(1, trial.steps_done), metrics)
            call = leases.finish(
                trial.lease,
                outcome=chosen,
                metrics=metrics,
                checkpoint=trial.checkpoint,
                environment=dict(environment or {}),
            )
        self.carry_out(call, trial=trial)
        self._forget(trial)

    # ---------------------------------------------------------------- inside

    def named(self, value: float | Mapping[str, float]) -> dict[str, float]:
        """Return finite metrics by name.

        Raises:
            ConflictError: one is NaN or infinite.
        """
        metrics = self._named(value)
        for name, one in metrics.items():
            if not math.isfinite(one):
                raise ConflictError(f"{name} is {one:g}, which is no measurement: tell the trial as failed")
        return metrics

    def _named(self, value: float | Mapping[str, float]) -> dict[str, float]:
        if isinstance(value, Mapping):
            return {name: float(one) for name, one in value.items()}
        objectives = [objective["metric"] for objective in self._spec["objectives"]]
        if len(objectives) > 1:
            raise ConflictError(f"the study has several objectives: give a value for each of {', '.join(objectives)}")
        return {objectives[0]: float(value)}

    def carry_out(self, call: Call[T], *, trial: AskedTrial | None = None) -> T:
        """Return the answer to a call, calling again for a while where the service is away.

        A lease that turns out to be lost is noted at `trial`.
        """
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS
        while True:
            try:
                return self.client.run(call)
            except StoreUnavailableError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except (StaleLeaseError, NotFoundError) as error:
                if trial is None:
                    raise
                lost = error if isinstance(error, StaleLeaseError) else StaleLeaseError(str(error))
                self._drop(trial, lost)
                raise lost from error

    def _claim(self, slot: int, deadline: float | None) -> Lease | None:
        lease_id, wait, said = uuid4(), 0.0, None
        while True:
            question = leases.claim(
                self.name, kind=self._kind, worker=self._worker(slot), lease_id=lease_id, wait_seconds=wait
            )
            try:
                found = self.carry_out(question)
            except StaleLeaseError:
                lease_id = uuid4()  # the answer was lost, and the trial has been taken back since
                continue
            if not isinstance(found, NoTrial):
                return found
            if found.quarantine != said and (said := found.quarantine) is not None:
                _log.warning("no trial is given to this machine: %s", said)
            if self.state in ENDED:
                return None
            left = math.inf if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"study {self.name!r} had no trial in time; it is {self.state}")
            # The service holds the question in whole seconds, and answers sooner when there is a trial.
            wait = min(HELD_SECONDS, left)
            if wait < 1:
                time.sleep(wait)

    def _worker(self, slot: int) -> dict[str, Any]:
        host = socket.gethostname()
        return {
            "name": f"{host}:ask:{os.getpid()}:{slot}",
            "host": host,
            "pid": os.getpid(),
            "device": "cpu",
            "version": version("video-hpo"),
            "start_id": self._start_id,
        }

    def _take_slot(self) -> int:
        """Return a number for a trial at a time, so that a worker of this name has one trial, as all others."""
        with self._lock:
            slot = next(number for number in range(len(self._slots) + 1) if number not in self._slots)
            self._slots.add(slot)
            return slot

    def _forget(self, trial: AskedTrial) -> None:
        with self._lock:
            self._open.pop(trial.lease["lease_id"], None)
            self._slots.discard(trial.slot)

    def _drop(self, trial: AskedTrial, lost: StaleLeaseError) -> None:
        trial.lose(lost)
        self._forget(trial)

    def _keep(self) -> None:
        """Send heartbeats for the trials that run, until the study is closed."""
        while not self._closing.wait(self._heartbeat_seconds):
            for trial in list(self._open.values()):
                if self.client.is_closed:
                    return  # what is open then is lost: its leases end by themselves
                self._beat(trial)

    def _beat(self, trial: AskedTrial) -> None:
        try:
            trial.note(Decision(self.client.run(leases.report(trial.lease))))
        except (StaleLeaseError, NotFoundError) as error:
            if trial.lease["lease_id"] in self._open:  # it was not told meanwhile
                _log.warning("trial %d is not this program's any more: %s", trial.number, error)
                self._drop(trial, StaleLeaseError(str(error)))
        except HpoError as error:
            _log.warning("no heartbeat for trial %d: %s", trial.number, error)


_STATES: Final[Mapping[Decision, State]] = {
    Decision.CONTINUE: "completed",
    Decision.STOP: "stopped",
    Decision.PAUSE: "paused",
    Decision.ABANDON: "released",
}
"""How a trial ends by what the study decided, where nothing else is told."""
