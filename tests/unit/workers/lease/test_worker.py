"""The worker over a scripted API and training processes that answer at once: claims, waits, limits and signals."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hpo.errors import AuthenticationError
from hpo.protocol import FinishRequest, Lease, ReleaseRequest, WorkerInfo
from workers.device.detection import Device
from workers.errors import ApiRefusedError, ApiUnavailableError
from workers.lease.client import NoWork
from workers.lease.inbox import Inbox, Message
from workers.lease.worker import Worker, WorkerConfig
from workers.process.messages import Command, Interrupted

from .fakes import Clock, FakeApi, FakeChild, FakeStandby, Reply, finished, make_lease, started

INFO = WorkerInfo(name="w", host="h", pid=1, device="cpu")
AWAY = ApiUnavailableError("the API is away")
PATIENCE_SECONDS = 30.0
"""How long a test waits for the thread of a reporter before it fails."""


class ClockInbox(Inbox):
    """Moves the clock where the worker would wait for a given time, and notes these times."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.waits: list[float] = []
        self.during_wait: Callable[[], None] = lambda: None

    def get(self, *, lease_id: UUID | None, timeout_seconds: float | None) -> Message | None:
        if timeout_seconds is None:
            message = super().get(lease_id=lease_id, timeout_seconds=PATIENCE_SECONDS)
            assert message is not None, "the worker would wait for ever"
            return message
        self.waits.append(timeout_seconds)
        self.during_wait()
        if self._messages.empty():
            self._clock.now += timeout_seconds
        return super().get(lease_id=lease_id, timeout_seconds=0.0)


class Bench:
    """A worker and everything around it."""

    def __init__(self, folder: Path, api: FakeApi, *children: FakeChild, **config: Any) -> None:
        self.api = api
        self.standby = FakeStandby(*children)
        self.clock = Clock()
        self.inbox = ClockInbox(self.clock)
        self.worker = Worker(
            WorkerConfig(
                info=INFO,
                device=Device(kind="cuda", label="cuda:1", threads=3, bf16=True, deterministic=True),
                checkpoint_dir=folder / "checkpoints",
                cache_dir=folder / "cache",
                **config,
            ),
            api,
            standby=self.standby,
            inbox=self.inbox,
            clock=self.clock,
        )

    @property
    def lease_ids(self) -> list[UUID]:
        """Of every claim."""
        return [request.lease_id for request in self.api.claimed]

    def terminate(self) -> None:
        """Let SIGTERM arrive."""
        self.worker.on_signal(signal.SIGTERM, None)


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a bench from the API's scripts, the children and the configuration."""

    def bench(*children: FakeChild, api: FakeApi, **config: Any) -> Bench:
        return Bench(tmp_path, api, *children, **config)

    return bench


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, high: high)


def _trained() -> FakeChild:
    return FakeChild(started(), finished())


# ---------------------------------------------------------------- claims


def test_trials_run_one_after_another_up_to_the_limit(make: Make) -> None:
    first, second = _trained(), _trained()
    leases = [make_lease(trial_id=9, number=0), make_lease(trial_id=10, number=1)]
    bench = make(first, second, api=FakeApi(claims=leases), max_trials=2, study="demo")
    bench.worker.run()
    assert [type(call) for call in bench.api.calls] == [FinishRequest, FinishRequest]
    assert [call.lease_id for call in bench.api.calls] == bench.lease_ids
    assert len(set(bench.lease_ids)) == 2
    assert bench.api.trial_ids == {9, 10}
    assert {(request.worker, request.study) for request in bench.api.claimed} == {(INFO, "demo")}
    # A process gets ready while the claim is under way and while a trial runs, but not after the last one.
    assert bench.standby.calls == ["prepare", "take", "prepare", "prepare", "take", "close"]


def test_the_job_carries_the_lease_and_the_device(make: Make, tmp_path: Path) -> None:
    child = _trained()
    lease = make_lease(attempt=2, checkpoint="/c/old.pt", epochs_done=2)
    make(child, api=FakeApi(claims=[lease]), max_trials=1).worker.run()
    assert child.job is not None
    assert child.job.model_dump(exclude={"task"}) == {
        "config": {"lr": 0.01},
        "stop_after": None,
        "folder": tmp_path / "checkpoints" / "5" / "9",
        "attempt": 2,
        "resume": True,
        "checkpoint": "/c/old.pt",
        "epochs_reported": 2,
        "cache_dir": tmp_path / "cache",
        "device": "cuda",
        "threads": 3,
        "bf16": True,
        "deterministic": True,
    }
    assert child.job.task == lease.task
    assert child.log == tmp_path / "checkpoints" / "5" / "9" / "attempt-0002.log"


@pytest.mark.parametrize(("attempt", "resume"), [(1, False), (2, True), (3, True)])
def test_the_first_attempt_does_not_resume_what_lies_in_its_folder(make: Make, attempt: int, resume: bool) -> None:
    child = _trained()
    make(child, api=FakeApi(claims=[make_lease(attempt=attempt)]), max_trials=1).worker.run()
    assert child.job is not None
    assert child.job.resume is resume


def test_a_claim_whose_reply_may_be_lost_is_repeated_with_the_same_lease_id(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench = make(_trained(), api=FakeApi(claims=[AWAY, AWAY, AWAY, make_lease()]), max_trials=1)
    bench.worker.run()
    assert len(bench.lease_ids) == 4
    assert len(set(bench.lease_ids)) == 1
    assert caplog.messages[:2] == ["the API is away; trying again", "the API answers again"]


def test_after_an_answer_without_a_trial_the_lease_id_is_a_new_one(make: Make) -> None:
    idle = NoWork(retry_after=1.0)
    bench = make(_trained(), api=FakeApi(claims=[idle, AWAY, idle, make_lease()]), max_trials=1)
    bench.worker.run()
    first, second, third, fourth = bench.lease_ids
    assert second == third
    assert len({first, second, fourth}) == 3


@pytest.mark.usefixtures("no_jitter")
def test_an_idle_worker_waits_as_long_as_the_api_says(make: Make) -> None:
    claims = [NoWork(retry_after=seconds) for seconds in (2.0, 7.5, 30.0)]
    bench = make(_trained(), api=FakeApi(claims=[*claims, make_lease()]), max_trials=1)
    bench.worker.run()
    assert bench.inbox.waits == [2.0, 7.5, 30.0]


def test_polls_of_many_workers_are_spread(make: Make) -> None:
    bench = make(_trained(), api=FakeApi(claims=[*[NoWork(retry_after=8.0)] * 100, make_lease()]), max_trials=1)
    bench.worker.run()
    assert 4.0 <= min(bench.inbox.waits) < max(bench.inbox.waits) <= 8.0


@pytest.mark.usefixtures("no_jitter")
def test_waits_grow_while_the_api_is_away_and_a_wait_it_asks_for_is_kept(make: Make) -> None:
    busy = ApiUnavailableError("busy", retry_after=6.0)
    claims: list[Reply] = [AWAY, AWAY, AWAY, busy, NoWork(retry_after=3.0), AWAY, make_lease()]
    bench = make(_trained(), api=FakeApi(claims=claims), max_trials=1)
    bench.worker.run()
    assert bench.inbox.waits == [0.5, 1.0, 2.0, 6.0, 3.0, 0.5]


def test_late_messages_do_not_shorten_a_wait(make: Make) -> None:
    bench = make(_trained(), api=FakeApi(claims=[NoWork(retry_after=4.0), make_lease()]), max_trials=1)
    for _ in range(3):
        bench.inbox.put(started(), lease_id=UUID(int=99))
    began = bench.clock.now
    bench.worker.run()
    assert len(bench.inbox.waits) == 4
    assert 2.0 <= bench.clock.now - began <= 4.0


@pytest.mark.usefixtures("no_jitter")
@pytest.mark.parametrize("reply", [NoWork(retry_after=4.0), ApiUnavailableError("away", retry_after=4.0)])
def test_a_worker_without_work_ends_after_its_time(
    make: Make, reply: NoWork | ApiUnavailableError, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench = make(api=FakeApi(claims=[reply] * 10), exit_when_idle_seconds=10.0)
    bench.worker.run()
    assert bench.inbox.waits == [4.0, 4.0, 4.0]
    assert caplog.messages[-1] == "no trial for 12 s; ending"
    assert bench.standby.calls == ["prepare", "close"]


@pytest.mark.usefixtures("no_jitter")
def test_the_idle_time_counts_from_the_last_trial(make: Make) -> None:
    idle = NoWork(retry_after=6.0)
    claims: list[Reply] = [idle, make_lease(), idle, idle, idle]
    bench = make(_trained(), api=FakeApi(claims=claims), exit_when_idle_seconds=10.0)
    bench.worker.run()
    assert len(bench.lease_ids) == 5


@pytest.mark.parametrize("error", [AuthenticationError("unknown token"), ApiRefusedError("there is no study 'x'")])
def test_a_claim_that_is_refused_ends_the_worker(make: Make, error: Exception) -> None:
    bench = make(api=FakeApi(claims=[error]))
    with pytest.raises(type(error), match=str(error)):
        bench.worker.run()
    assert bench.standby.calls[-1] == "close"


def test_a_token_that_is_refused_during_a_trial_ends_the_worker(make: Make) -> None:
    refused = AuthenticationError("unknown token")
    child = FakeChild(started())
    api = FakeApi(claims=[make_lease(heartbeat_seconds=0.001)], reports=[refused])
    with pytest.raises(AuthenticationError, match="unknown token"):
        make(child, FakeChild(), api=api).worker.run()
    assert child.patience, "the training process was ended"


def test_a_lost_lease_does_not_end_the_worker(make: Make) -> None:
    api = FakeApi(
        claims=[make_lease(heartbeat_seconds=0.001), make_lease(trial_id=10)], reports=[ApiRefusedError("no")]
    )
    make(FakeChild(started()), _trained(), api=api, max_trials=2).worker.run()
    assert isinstance(api.calls[-1], FinishRequest)


# ---------------------------------------------------------------- signals


class DrainingChild(FakeChild):
    """Writes its checkpoint when it is asked to."""

    def send(self, command: Command) -> None:
        super().send(command)
        if command.action == "drain":
            assert self.deliver is not None
            self.deliver(Interrupted(checkpoint="/c/e1.pt"))


def test_a_signal_during_a_trial_drains_it_and_no_other_is_claimed(tmp_path: Path) -> None:
    child = DrainingChild(started())
    api = FakeApi(claims=[make_lease()])
    config = WorkerConfig(
        info=INFO,
        device=Device(kind="cpu", label="cpu", threads=1),
        checkpoint_dir=tmp_path,
        cache_dir=tmp_path,
    )
    standby = FakeStandby(child)
    worker = Worker(config, api, standby=standby)  # its deadlines are those of the real clock
    child.when_assigned = lambda: worker.on_signal(signal.SIGTERM, None)
    worker.run()
    assert child.actions == ["drain"]
    [release] = api.calls
    assert isinstance(release, ReleaseRequest)
    assert (release.reason, release.checkpoint) == ("drained", "/c/e1.pt")
    assert standby.calls[-1] == "close"


def test_a_signal_during_a_wait_ends_the_worker_at_once(make: Make) -> None:
    bench = make(api=FakeApi(claims=[NoWork(retry_after=60.0)]))
    bench.inbox.during_wait = bench.terminate
    bench.worker.run()
    assert len(bench.inbox.waits) == 1


@pytest.mark.parametrize("reply", [NoWork(retry_after=60.0), AWAY])
def test_a_signal_during_a_claim_ends_the_worker_without_a_wait(make: Make, reply: NoWork | Exception) -> None:
    def claim() -> NoWork | Exception:
        bench.terminate()
        return reply

    bench = make(api=FakeApi(claims=[claim]))
    bench.worker.run()
    assert bench.inbox.waits == []


@pytest.mark.parametrize("answers", [True, False])
def test_a_trial_that_was_claimed_while_the_signal_arrived_is_given_back(
    make: Make, answers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lease = make_lease(attempt=2, checkpoint="/c/old.pt")

    def claim() -> Lease:
        bench.terminate()
        return lease

    bench = make(api=FakeApi(claims=[claim], endings=[] if answers else [AWAY]))
    bench.worker.run()
    assert bench.api.calls == [
        ReleaseRequest(attempt=2, lease_id=bench.lease_ids[0], reason="drained", checkpoint="/c/old.pt")
    ]
    assert ("the lease of trial 3 will expire" in caplog.text) != answers
    assert bench.standby.calls == ["prepare", "close"]


def test_a_signal_before_the_start_leaves_nothing_to_do(make: Make) -> None:
    bench = make(api=FakeApi())
    bench.terminate()
    bench.worker.run()
    assert bench.lease_ids == []


class ProcessEnded(BaseException):
    """Stands in for the end of the worker's process."""


@pytest.fixture
def ended_with(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The calls that end processes, which do nothing here."""
    calls: list[tuple[str, int, int]] = []

    def end(status: int) -> None:
        calls.append(("exit", status, 0))
        raise ProcessEnded

    monkeypatch.setattr(os, "kill", lambda pid, number: calls.append(("kill", pid, number)))
    monkeypatch.setattr(os, "_exit", end)
    return calls


def test_a_second_signal_kills_the_training_process_and_ends_at_once(
    make: Make, ended_with: list[tuple[str, int, int]]
) -> None:
    child = FakeChild(started())
    bench = make(child, api=FakeApi(claims=[make_lease()]), max_trials=1)

    def interrupt_twice() -> None:
        bench.worker.on_signal(signal.SIGINT, None)
        bench.worker.on_signal(signal.SIGINT, None)

    child.when_assigned = interrupt_twice
    with pytest.raises(ProcessEnded):
        bench.worker.run()
    assert ended_with == [("kill", child.pid, signal.SIGKILL), ("exit", 128 + signal.SIGINT, 0)]


def test_a_second_signal_without_a_trial_just_ends(make: Make, ended_with: list[tuple[str, int, int]]) -> None:
    bench = make(api=FakeApi())
    bench.terminate()
    with pytest.raises(ProcessEnded):
        bench.terminate()
    assert ended_with == [("exit", 128 + signal.SIGTERM, 0)]


def test_after_a_trial_a_second_signal_kills_no_process_of_the_same_number(
    make: Make, ended_with: list[tuple[str, int, int]]
) -> None:
    bench = make(_trained(), api=FakeApi(claims=[make_lease()]), max_trials=1)
    bench.worker.run()
    bench.terminate()
    with pytest.raises(ProcessEnded):
        bench.terminate()
    assert ended_with == [("exit", 128 + signal.SIGTERM, 0)]


def test_the_worker_takes_both_signals(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    bench = make(api=FakeApi())
    bench.worker.install_signal_handlers()
    assert handlers == {signal.SIGTERM: bench.worker.on_signal, signal.SIGINT: bench.worker.on_signal}
