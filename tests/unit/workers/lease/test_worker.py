"""The worker over a scripted API and training processes that answer at once: claims, waits, limits and signals."""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hpo.errors import AuthenticationError, StaleLeaseError
from hpo.installation import REPEATED_SECONDS
from hpo.protocol import FinishRequest, Lease, ReleaseRequest, WorkerInfo
from hpo.spec.checkpoints import CheckpointPolicy
from hpo.trial import FailureKind, Fault
from workers.checkpoints.folder import run_of
from workers.device.detection import Device
from workers.errors import ApiRefusedError, ApiUnavailableError, MachineError
from workers.lease.client import NoWork
from workers.lease.inbox import Inbox, Message
from workers.lease.watchdog import Patience
from workers.lease.worker import Worker, WorkerConfig
from workers.process.child import Child, ProcessExited
from workers.process.messages import Command, Failed, Interrupted, WorkerFault

from .fakes import Clock, FakeApi, FakeChild, FakeStandby, Reply, finished, make_lease, started

INFO = WorkerInfo(name="w", host="h", pid=1, device="cpu")
AWAY = ApiUnavailableError("the API is away")
ENDLESS = Patience(starting_seconds=1e9, silent_seconds=1e9, step_seconds=1e9)
"""A clock that moves when the worker waits must not make a training process hang."""
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
        if timeout_seconds is None or timeout_seconds > PATIENCE_SECONDS * 10:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:  # a late message about another trial ends a wait early
                message = super().get(lease_id=lease_id, timeout_seconds=PATIENCE_SECONDS)
                if message is not None:
                    return message
            raise AssertionError("the worker would wait for ever")
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
                device=Device(
                    kind="cuda", label="cuda:1", threads=3, bf16=True, fp16=True, deterministic=True, memory_share=0.5
                ),
                checkpoint_dir=folder / "checkpoints",
                cache_dir=folder / "cache",
                **{"patience": ENDLESS, **config},
            ),
            api,
            standby=self.standby,
            inbox=self.inbox,
            check=self._check,
            may_claim=lambda: self.clock.now >= self.complete_at,
            clean_up=lambda: self.cleaned_before_claims.append(len(api.claimed)),
            clock=self.clock,
        )
        self.complete_at = self.clock.now
        """When the others of its group are there."""
        self.problem: str | None = None
        """What a check of the device finds."""
        self.checked: list[Device] = []
        self.cleaned_before_claims: list[int] = []
        """How many claims there were at each cleanup."""

    def _check(self, device: Device) -> str | None:
        self.checked.append(device)
        return self.problem

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
    assert bench.cleaned_before_claims == [0, 1]


def test_the_job_carries_the_lease_and_the_device(make: Make, tmp_path: Path) -> None:
    child = _trained()
    lease = make_lease(attempt=2, checkpoint="/c/old.pt", epochs_done=2, weights={"a.pth": "1" * 64})
    lease = lease.model_copy(update={"checkpoints": CheckpointPolicy(best=True, every=2)})
    roots = (tmp_path / "weights",)
    bench = make(
        child,
        api=FakeApi(claims=[lease]),
        max_trials=1,
        weights_roots=roots,
        tensorboard=True,
        readers=6,
        compile="graphs",
    )
    bench.worker.run()
    assert child.job is not None
    assert child.job.model_dump(exclude={"task"}) == {
        "config": {"lr": 0.01},
        "study": lease.study,
        "number": lease.number,
        "seed_is_searched": False,
        "stop_after": None,
        "run": run_of(bench.lease_ids[0]),
        "folder": tmp_path / "checkpoints" / "5" / "9",
        "attempt": 2,
        "resume": True,
        "checkpoint": "/c/old.pt",
        "epochs_reported": 2,
        "checkpoint_roots": [tmp_path / "checkpoints"],
        "data_roots": None,
        "remote_roots": [],
        "for_others": True,
        "cache_dir": tmp_path / "cache",
        "weights_roots": [tmp_path / "weights"],
        "weights": {"a.pth": "1" * 64},
        "device": "cuda",
        "threads": 3,
        "bf16": True,
        "fp16": True,
        "deterministic": True,
        "pulse_seconds": 5.0,
        "memory_share": 0.5,
        "memory_plan": None,
        "smaller_plan": None,
        "ranks": 1,
        "nodes": 1,
        "followers": [],
        "tensorboard": True,
        "readers": 6,
        "compile": "graphs",
        "measures": [],
        "refit": False,
        "checkpoints": {"last": True, "best": True, "every": 2, "stopped": True, "quota_gb": None},
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


def test_a_lease_id_is_kept_until_it_was_good_for_a_claim(make: Make) -> None:
    # A late copy of a claim that was answered without a trial takes one under this id: the next claim finds it.
    idle = NoWork(retry_after=1.0)
    api = FakeApi(claims=[idle, AWAY, idle, make_lease(), make_lease()])
    bench = make(_trained(), _trained(), api=api, max_trials=2)
    bench.worker.run()
    *before, after = bench.lease_ids
    assert len(set(before)) == 1
    assert after not in before


def test_a_claim_whose_lease_was_lost_with_its_reply_is_sent_again_with_a_new_lease_id(make: Make) -> None:
    bench = make(_trained(), api=FakeApi(claims=[AWAY, StaleLeaseError("over"), make_lease()]), max_trials=1)
    bench.worker.run()
    first, second, third = bench.lease_ids
    assert first == second != third


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


@pytest.mark.usefixtures("no_jitter")
def test_the_time_in_which_a_group_gathers_is_not_idle(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = make(api=FakeApi(claims=[NoWork(retry_after=4.0)] * 10), exit_when_idle_seconds=10.0)
    began = bench.clock.now
    bench.complete_at = began + 300.0
    bench.worker.run()
    assert caplog.messages[-1] == "no trial for 12 s; ending"
    assert bench.clock.now - began == pytest.approx(312.0)


@pytest.mark.parametrize(("limit", "seconds"), [(0.0, 600.0), (10.0, 600.0), (3600.0, 3600.0)])
def test_a_group_that_does_not_gather_ends(
    make: Make, caplog: pytest.LogCaptureFixture, limit: float, seconds: float
) -> None:
    bench = make(api=FakeApi(), exit_when_idle_seconds=limit)
    began = bench.clock.now
    bench.complete_at = math.inf
    bench.worker.run()
    assert caplog.messages == [f"the group is not complete after {seconds:.0f} s; ending"]
    assert bench.clock.now - began == pytest.approx(seconds)
    assert not bench.api.claimed


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


# ---------------------------------------------------------------- faults of the machine


def _failing(fault: Fault) -> FakeChild:
    return FakeChild(started(), WorkerFault(fault=fault, message="it failed"))


def test_a_gpu_that_fails_its_check_ends_the_worker_after_the_trial_is_given_back(make: Make) -> None:
    api = FakeApi(claims=[make_lease()])
    bench = make(_failing(Fault.DEVICE), FakeChild(), api=api)
    bench.problem = "the GPU is lost"
    with pytest.raises(MachineError, match=r"^the GPU is lost; the trial was given back .* repair cuda:1"):
        bench.worker.run()
    [release] = api.calls
    assert isinstance(release, ReleaseRequest)
    assert (release.reason, release.fault) == ("crashed", Fault.DEVICE)
    assert bench.standby.calls[-1] == "close"


@pytest.mark.parametrize("fault", Fault)
def test_a_device_is_checked_after_every_fault_that_may_be_its(make: Make, fault: Fault) -> None:
    bench = make(_failing(fault), _trained(), api=FakeApi(claims=[make_lease(), make_lease(trial_id=10)]), max_trials=2)
    bench.worker.run()
    others = {Fault.STORAGE, Fault.FILES, Fault.SYSTEM}
    assert [device.label for device in bench.checked] == ([] if fault in others else ["cuda:1"])
    assert isinstance(bench.api.calls[-1], FinishRequest), "a device that is found well has the next trial"


def test_a_process_that_dies_is_a_reason_to_check_the_device(make: Make) -> None:
    bench = make(FakeChild(started(), ProcessExited(returncode=-9)), api=FakeApi(claims=[make_lease()]), max_trials=1)
    bench.worker.run()
    assert len(bench.checked) == 1


def test_results_and_failures_of_trials_are_no_reason(make: Make) -> None:
    failed = FakeChild(started(), Failed(failure_kind=FailureKind.ERROR, message="a bug"))
    bench = make(_trained(), failed, api=FakeApi(claims=[make_lease(), make_lease(trial_id=10)]), max_trials=2)
    bench.worker.run()
    assert bench.checked == []


def test_a_trial_goes_back_if_no_process_can_be_started_for_it(make: Make) -> None:
    bench = make(api=FakeApi(claims=[make_lease(checkpoint="/c/old.pt")]))

    def take() -> Child:
        raise MachineError("no training process can be started (the disk is full)")

    bench.standby.take = take  # type: ignore[method-assign]  # a machine that fails between two calls
    with pytest.raises(MachineError, match="the disk is full"):
        bench.worker.run()
    [release] = bench.api.calls
    assert isinstance(release, ReleaseRequest)
    assert (release.reason, release.fault, release.checkpoint) == ("crashed", Fault.SYSTEM, "/c/old.pt")


def test_a_trial_goes_back_if_its_folder_cannot_be_written(make: Make) -> None:
    class Unassigned(FakeChild):
        def assign(self, *_: Any) -> None:
            raise OSError(28, "No space left on device")

    bench = make(Unassigned(), _trained(), api=FakeApi(claims=[make_lease(), make_lease(trial_id=10)]), max_trials=2)
    bench.worker.run()
    release, result = bench.api.calls
    assert isinstance(release, ReleaseRequest)
    assert (release.reason, release.fault) == ("crashed", Fault.STORAGE)
    assert "No space left" in (release.message or "")
    assert isinstance(result, FinishRequest)


def test_a_quarantine_and_its_end_are_logged_once_each(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shut = NoWork(retry_after=1.0, quarantine="storage: the disk is full")
    bench = make(_trained(), api=FakeApi(claims=[shut, shut, NoWork(retry_after=1.0), make_lease()]), max_trials=1)
    bench.worker.run()
    said = "the API gives this worker no trial: storage: the disk is full; `hpo workers release w` ends that"
    assert caplog.messages.count(said) == 1
    assert caplog.messages.count("this worker may have trials again") == 1


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


def test_a_job_names_what_may_be_read_and_who_reads_what_it_says(make: Make, tmp_path: Path) -> None:
    child = FakeChild(started(), finished())
    roots = {"checkpoint_roots": (Path("/shared"),), "data_roots": (Path("/data"),), "remote_roots": ("s3://sets",)}
    make(child, api=FakeApi(claims=[make_lease()]), max_trials=1, **roots).worker.run()
    job = child.job
    assert job is not None
    assert (job.checkpoint_roots, job.data_roots) == ([tmp_path / "checkpoints", Path("/shared")], [Path("/data")])
    assert job.remote_roots == ["s3://sets"]
    assert job.for_others


STUDY = UUID("5f0c7a3e-9d1b-4c55-8a52-0123456789ab")
OLD = "/old/1/7/a0001-e0002-b0000000-0123456789abcdef.pt"


@pytest.mark.parametrize(
    ("changes", "folder", "run"),
    [
        ({"study_uuid": STUDY}, str(STUDY), "5f0c7a3e9d1b"),
        ({"study_uuid": STUDY, "checkpoint": OLD, "attempt": 2}, str(STUDY), "5f0c7a3e9d1b"),
        ({}, "7", None),
        ({"checkpoint": OLD, "attempt": 2}, "7", ""),
    ],
    ids=["uuid", "uuid after an upgrade", "older API", "older API, older checkpoint"],
)
def test_checkpoints_are_named_by_the_study_for_good(
    make: Make, tmp_path: Path, changes: dict[str, Any], folder: str, run: str | None
) -> None:
    child = FakeChild(started(), finished())
    lease = make_lease(study_id=7, trial_id=9, **changes)
    bench = make(child, api=FakeApi(claims=[lease]), max_trials=1)
    bench.worker.run()
    job = child.job
    assert job is not None
    of_the_lease = run_of(bench.lease_ids[0])
    assert (job.folder, job.run) == (tmp_path / "checkpoints" / folder / "9", of_the_lease if run is None else run)


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


@pytest.mark.parametrize("refusal", [StaleLeaseError(), ApiRefusedError("the API refused it")])
def test_a_release_that_is_refused_while_the_signal_arrives_does_not_fail_the_worker(
    make: Make, refusal: Exception
) -> None:
    def claim() -> Lease:
        bench.terminate()
        return make_lease()

    bench = make(api=FakeApi(claims=[claim], endings=[refusal]))
    bench.worker.run()
    assert len(bench.api.calls) == 1


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


def test_a_second_signal_without_a_trial_just_ends_unless_it_is_the_first_sent_on_by_a_launcher(
    make: Make, ended_with: list[tuple[str, int, int]]
) -> None:
    bench = make(api=FakeApi())
    bench.terminate()
    bench.terminate()
    assert ended_with == []
    bench.clock.now += REPEATED_SECONDS
    with pytest.raises(ProcessEnded):
        bench.terminate()
    assert ended_with == [("exit", 128 + signal.SIGTERM, 0)]


def test_after_a_trial_a_second_signal_kills_no_process_of_the_same_number(
    make: Make, ended_with: list[tuple[str, int, int]]
) -> None:
    bench = make(_trained(), api=FakeApi(claims=[make_lease()]), max_trials=1)
    bench.worker.run()
    bench.terminate()
    bench.clock.now += REPEATED_SECONDS
    with pytest.raises(ProcessEnded):
        bench.terminate()
    assert ended_with == [("exit", 128 + signal.SIGTERM, 0)]


def test_the_worker_takes_both_signals(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    bench = make(api=FakeApi())
    bench.worker.install_signal_handlers()
    assert handlers == {signal.SIGTERM: bench.worker.on_signal, signal.SIGINT: bench.worker.on_signal}
