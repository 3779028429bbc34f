"""A trial of several processes: what is passed on, and what ends it. The ranks are small programs, but for one test."""

from __future__ import annotations

import os
import queue
import signal
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hpo.trial import FailureKind, Fault
from workers.checkpoints.contents import load
from workers.device.detection import cpu_device
from workers.process.child import Child, ProcessExited
from workers.process.messages import (
    Alive,
    Command,
    EpochDone,
    Event,
    Failed,
    Finished,
    Interrupted,
    Job,
    Note,
    Started,
    WorkerFault,
)

from ..tiny import tiny_config, tiny_task

E = TypeVar("E")
DEADLINE_SECONDS = 120.0
RANK = """
import os, signal, sys, time
from workers.process.messages import *
from workers.process.orphans import end_with_parent
from workers.process.pipes import EventPipe, LOST_OTHERS
end_with_parent()
events, rank, job = EventPipe(int(sys.argv[1])), int(sys.argv[2]), Job.model_validate_json(sys.stdin.readline())
alive = Alive(is_training=True, steps=7 + rank)
events.send(alive)
def hang():
    time.sleep(1000)
"""
"""How a rank of a test begins; `events` goes to what watches it."""
STARTER = """
import sys
from workers.process import ranks
from workers.process.messages import Job
from workers.process.pipes import EventPipe
ranks._CODE = {program!r}
job = Job.model_validate_json(sys.stdin.readline())
ranks.run_on_ranks(job, events=EventPipe(int(sys.argv[1])), commands=sys.stdin)
"""


class Trial:
    """A trial of two ranks."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        self._settings = settings
        self._events: queue.SimpleQueue[Event | ProcessExited] = queue.SimpleQueue()
        self.heard: list[Event | ProcessExited] = []
        self.child: Child | None = None

    def start(self, program: str | None = None, *, handles: Sequence[int] = (), **changes: Any) -> Child:
        """Start ranks that are `RANK` and some lines more, or that train."""
        device = cpu_device(threads=1)
        if program is None:
            self.child = Child.start(device, self._folder)
        else:
            code = STARTER.format(program=RANK + textwrap.dedent(program))
            self.child = Child.start(device, self._folder, code=code, handles=handles)
        self.child.assign(self.job(**changes), self._folder / "attempt-0001.log", self._events.put)
        return self.child

    def job(self, **changes: Any) -> Job:
        """Return what is trained."""
        job = {"folder": self._folder, "attempt": 1, "resume": False, "device": "cpu", "threads": 1, "ranks": 2}
        return Job(**{**job, **self._settings, **changes})

    def wait_for(self, kind: type[E], holds: Callable[[E], bool] = lambda _: True) -> E:
        """Return the next event of a kind; every epoch on the way is answered."""
        assert self.child is not None
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            self.heard.append(event)
            if isinstance(event, EpochDone):
                self.child.send(Command(action="continue", epoch=event.measurement.step))
            if isinstance(event, kind) and holds(event):
                return event
            assert not isinstance(event, ProcessExited), self.child.log_tail()

    def pids(self) -> list[int]:
        """Return the ranks."""
        assert self.child is not None
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    made = Trial(tmp_path / "trial", config=tiny_config().to_flat(), task=tiny_task(tmp_path), cache_dir=tmp_path)
    yield made
    if made.child is not None:
        made.child.end()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and waits to be waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    for pid in pids:
        while is_alive(pid):
            assert time.monotonic() < deadline, pid
            os.sched_yield()


def test_the_first_rank_speaks_for_all_and_commands_reach_it(trial: Trial) -> None:
    child = trial.start(
        """
        events.send(Note(text=f"rank {rank}"))
        if rank == 1:
            hang()
        assert Command.model_validate_json(sys.stdin.readline()).action == "drain"
        events.send(Interrupted(checkpoint="there.pt"))
        """
    )
    trial.wait_for(Note, lambda note: note.text == "rank 0")
    child.send(Command(action="drain"))
    assert trial.wait_for(Interrupted).checkpoint == "there.pt"
    assert trial.wait_for(ProcessExited).returncode == 0
    assert [event.text for event in trial.heard if isinstance(event, Note)] == ["rank 0"]
    assert {event.steps for event in trial.heard if isinstance(event, Alive)} <= {7}


def test_every_rank_hears_that_it_is_to_end_for_it_may_be_in_a_compiler(trial: Trial) -> None:
    child = trial.start(
        """
        assert Command.model_validate_json(sys.stdin.readline()).action == "stop"
        events.send(Failed(failure_kind="error", message="rank 1 heard it") if rank else Note(text="rank 0 heard it"))
        hang()
        """
    )
    child.send(Command(action="stop"))
    assert trial.wait_for(Failed).message == "rank 1 heard it"


def test_what_a_rank_says_of_its_failure_is_the_trials_and_ends_all(trial: Trial) -> None:
    trial.start(
        """
        if rank == 0:
            os._exit(LOST_OTHERS)  # before the other one says why it is gone
        time.sleep(0.5)
        events.send(Failed(failure_kind="diverged", message="the loss became nan"))
        hang()
        """
    )
    failed = trial.wait_for(Failed)
    assert (failed.failure_kind, failed.message) == (FailureKind.DIVERGED, "the loss became nan")
    assert trial.wait_for(ProcessExited).returncode == 0


def test_a_rank_that_is_killed_ends_the_trial_as_a_fault_that_names_it(trial: Trial) -> None:
    trial.start("os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else hang()")
    fault = trial.wait_for(WorkerFault)
    assert fault.fault is Fault.PROCESS
    assert fault.message == "rank 1 of 2: the training process was killed by SIGKILL"
    assert trial.wait_for(ProcessExited).returncode == 0


def test_all_begin_again_by_a_smaller_plan_when_memory_runs_out_on_one(trial: Trial) -> None:
    trial.start(
        """
        if job.smaller_plan is None and rank == 1:
            events.send(Restart(plan={"micro_batch": 1}))
        if job.smaller_plan is None or rank == 1:
            hang()
        events.send(Failed(failure_kind="error", message=f"{job.resume} {job.smaller_plan}"))
        """
    )
    assert trial.wait_for(Failed).message == "True {'micro_batch': 1}"


def test_a_rank_that_hangs_silences_the_trial_and_all_end_with_what_started_them(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    child = trial.start(
        """
        if rank == 1:
            signal.raise_signal(signal.SIGSTOP)
        for _ in range(50):
            events.send(alive)
        events.send(Note(text="sent"))
        hang()
        """
    )
    trial.wait_for(Note)
    # Both were alive once; after that one of them says nothing, and the watchdog of the worker does the rest.
    assert sum(isinstance(event, Alive) for event in trial.heard) <= 1
    pids = trial.pids()
    assert len(pids) == 2
    child.end()
    wait_until_gone(pids)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_two_ranks_train_drain_resume_and_leave_nothing_behind(tmp_path: Path, videos: Path, cache_dir: Path) -> None:
    trial = Trial(
        tmp_path / "trial",
        config=tiny_config().to_flat(),
        task=tiny_task(videos, epochs=10_000),
        cache_dir=cache_dir,
        pulse_seconds=0.2,
    )
    child = trial.start()
    trial.wait_for(Started)
    done = trial.wait_for(EpochDone)
    assert done.measurement.gpu_seconds == 2 * done.measurement.wall_seconds
    child.send(Command(action="drain"))
    drained = trial.wait_for(Interrupted)
    assert drained.checkpoint is not None
    state = load(Path(drained.checkpoint))
    assert len(state["random_of_others"]) == 1
    trial.wait_for(ProcessExited)
    child.end()

    child = trial.start(resume=True, checkpoint=drained.checkpoint)
    started = trial.wait_for(Started)
    assert (started.epoch, started.batch) == (state["epoch"], state["batch"])
    trial.wait_for(Alive, lambda alive: alive.is_training)
    pids = trial.pids()
    os.kill(pids[1], signal.SIGKILL)
    fault = trial.wait_for(WorkerFault)
    assert fault.fault is Fault.PROCESS
    assert "rank 1 of 2" in fault.message
    trial.wait_for(ProcessExited)
    wait_until_gone(pids)
    child.end()


def test_a_finished_trial_has_what_the_first_rank_says(trial: Trial) -> None:
    trial.start('events.send(Finished(outcome="completed", metrics={"val_top1": rank / 2}, checkpoint=None))')
    assert trial.wait_for(Finished).metrics == {"val_top1": 0.0}
