"""The training process, as a real one: its pipes, its signals, its end."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from workers.checkpoints.contents import load
from workers.device.detection import cpu_device
from workers.process.child import Child, ProcessExited, StandbyProcess
from workers.process.messages import Command, EpochDone, Event, Finished, Interrupted, Job, Started

from ..tiny import tiny_config, tiny_task

E = TypeVar("E")
LONG = 10_000
DEADLINE_SECONDS = 60.0


class Run:
    """A child at work on a job that would take an hour."""

    def __init__(self, folder: Path, videos: Path, cache_dir: Path) -> None:
        self._events: queue.SimpleQueue[Event | ProcessExited] = queue.SimpleQueue()
        self.child = Child.start(cpu_device(threads=1), folder)
        job = Job(
            config=tiny_config().to_flat(),
            task=tiny_task(videos, epochs=LONG),
            folder=folder,
            attempt=1,
            resume=False,
            cache_dir=cache_dir,
            device="cpu",
            threads=1,
        )
        self.child.assign(job, folder / "log", self._events.put)

    def wait_for(self, kind: type[E], holds: Callable[[E], bool] = lambda _: True) -> E:
        """Return the next event of a kind; every epoch on the way is answered."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            if isinstance(event, EpochDone):
                self.child.send(Command(action="continue", epoch=event.measurement.step))
            if isinstance(event, kind) and holds(event):
                return event
            assert not isinstance(event, ProcessExited), self.child.log_tail()


@pytest.fixture
def run(tmp_path: Path, videos: Path, cache_dir: Path) -> Iterator[Run]:
    started = Run(tmp_path / "trial", videos, cache_dir)
    yield started
    started.child.end()


def test_signals_for_the_whole_group_do_not_disturb_it_and_a_drain_leaves_a_checkpoint(run: Run) -> None:
    run.wait_for(Started)
    os.kill(run.child.pid, signal.SIGTERM)
    os.kill(run.child.pid, signal.SIGINT)
    done = run.wait_for(EpochDone)
    run.child.send(Command(action="drain"))
    last = run.wait_for(Interrupted)
    assert last.checkpoint is not None
    assert Path(last.checkpoint).is_file()
    assert last.environment["threads"] == 1
    assert run.wait_for(ProcessExited).returncode == 0
    assert done.measurement.step >= 1


def test_a_stop_amid_an_epoch_keeps_the_last_whole_epochs_metrics_and_weights(run: Run) -> None:
    done = run.wait_for(EpochDone, lambda event: event.measurement.step == 3)
    run.child.send(Command(action="stop"))
    last = run.wait_for(Finished)
    assert last.outcome == "stopped"
    assert last.checkpoint is not None
    state = load(Path(last.checkpoint))
    assert state["epoch"] >= 3
    assert state["batch"] == 0
    assert state["curve"][-1]["metrics"] == last.metrics
    assert state["curve"][2]["metrics"] == done.measurement.metrics


def is_alive(child: Child) -> bool:
    # A call, because a type checker takes an attribute that was true for true ever after.
    return child.alive


def test_a_process_that_waits_for_a_job_ends_with_the_standby(tmp_path: Path) -> None:
    standby = StandbyProcess(cpu_device(threads=1), tmp_path)
    standby.prepare()
    child = standby.take()
    assert is_alive(child)
    child.end()
    standby.prepare()
    standby.close()
    assert not is_alive(child)
    assert list(tmp_path.iterdir()) == []
