"""A trial of two machines, seen from the leader's child: the test is the follower, and the ranks are small programs."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpo.trial import FailureKind, Fault
from workers.process.channel import Channel, Line, accept, connect, listener
from workers.process.child import ProcessExited
from workers.process.group import FROM_LEADER, Begin, Exited, Heard, Leaving, Node, Said
from workers.process.messages import Alive, Event, Failed, Interrupted, Note, Restart, WorkerFault

from ..tiny import tiny_config, tiny_task
from .test_ranks import Trial

TOKEN = "hpo_secret"  # noqa: S105 - of no service


class FollowedTrial(Trial):
    """A trial of a rank here, and of one elsewhere that the test plays."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        with listener("127.0.0.1", 0) as listening:
            ends: list[Channel] = []
            leader = threading.Thread(target=lambda: ends.append(accept(listening.accept()[0], TOKEN)[0]))
            leader.start()
            self.channel = connect(listening.getsockname(), TOKEN, "hello")
            leader.join()
        self.leaders = ends[0]
        self._lines = self.channel.received()

    def lead(self, program: str) -> Line:
        """Start the leader's rank."""
        line = self.leaders.line(1, "other")
        self.start(program, handles=[line.handle], nodes=2, followers=[line])
        self.leaders.leave()
        return line

    def begun(self) -> Begin:
        """Return what the leader has the follower start."""
        begin = FROM_LEADER.validate_json(next(self._lines))
        assert isinstance(begin, Begin)
        return begin

    def says(self, event: Event, *, start: int = 1) -> None:
        """Let the rank elsewhere say something."""
        self.channel.send(Said(start=start, rank=1, event=event).model_dump_json())


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[FollowedTrial]:
    made = FollowedTrial(
        tmp_path / "trial", config=tiny_config().to_flat(), task=tiny_task(tmp_path), cache_dir=tmp_path
    )
    yield made
    if made.child is not None:
        made.child.end()
    made.channel.close()
    made.leaders.leave()


def test_a_rank_elsewhere_counts_as_one_of_here_and_starts_again_with_it(trial: FollowedTrial) -> None:
    trial.lead(
        """
        events.send(Note(text=f"start with {job.smaller_plan}"))
        hang()
        """
    )
    begin = trial.begun()
    assert (begin.start, begin.first, begin.job.ranks, begin.job.followers) == (1, 1, 2, [])
    trial.wait_for(Note)
    assert not any(isinstance(event, Alive) for event in trial.heard), "the rank elsewhere has not said so yet"
    trial.says(Alive(is_training=True, steps=99))
    assert trial.wait_for(Alive).steps == 7, "how far they are, the first rank says"

    trial.says(Restart(plan={"micro_batch": 1}))
    again = trial.begun()
    assert (again.start, again.job.smaller_plan, again.job.resume) == (2, {"micro_batch": 1}, True)
    assert again.port != 0
    trial.says(Failed(failure_kind=FailureKind.ERROR, message="of the start before"), start=1)
    trial.says(Failed(failure_kind=FailureKind.DIVERGED, message="the loss became nan"), start=2)
    assert trial.wait_for(Failed).message == "the loss became nan"
    assert trial.wait_for(ProcessExited).returncode == 0
    assert next(trial._lines, None) is None, "the connection has ended with the trial"


def test_a_follower_that_is_asked_to_end_has_the_first_rank_write_a_checkpoint(trial: FollowedTrial) -> None:
    trial.lead(
        """
        assert Command.model_validate_json(sys.stdin.readline()).action == "drain"
        events.send(Interrupted(checkpoint="there.pt"))
        """
    )
    trial.begun()
    trial.channel.send(Leaving().model_dump_json())
    trial.channel.send(Exited(start=1, rank=1, returncode=0).model_dump_json())
    assert trial.wait_for(Interrupted).checkpoint == "there.pt"


def test_without_a_follower_that_was_there_before_the_claim_the_trial_is_given_back(trial: FollowedTrial) -> None:
    trial.start("hang()", nodes=2)
    assert trial.wait_for(Interrupted).checkpoint is None


@pytest.mark.parametrize("is_asked", [False, True], ids=["lost", "asked to end, and out of time"])
def test_a_follower_that_is_gone_ends_the_attempt(trial: FollowedTrial, is_asked: bool) -> None:
    trial.lead("sys.stdin.readline()")
    trial.begun()
    if is_asked:
        trial.channel.send(Leaving().model_dump_json())
    trial.channel.close()
    if is_asked:
        assert trial.wait_for(Interrupted).checkpoint is None
    else:
        lost = trial.wait_for(WorkerFault)
        assert lost.fault is Fault.PROCESS
        assert lost.message == "the follower of node rank 1, on other, is gone, with its ranks"


def test_a_rank_elsewhere_that_is_killed_is_named_with_its_machine(trial: FollowedTrial) -> None:
    trial.lead("sys.stdin.readline()")
    trial.begun()
    trial.channel.send(Exited(start=1, rank=1, returncode=-signal.SIGKILL).model_dump_json())
    killed = "rank 1 of 2, on other: the training process was killed by SIGKILL"
    assert trial.wait_for(WorkerFault).message == killed


@contextmanager
def _begun_there(trial: FollowedTrial) -> Iterator[queue.SimpleQueue[Heard]]:
    """Begin the trial on the other machine alone, and yield what is heard from there."""
    line = trial.leaders.line(1, "other")
    node = Node(line.model_copy(update={"handle": os.dup(line.handle)}))
    heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
    try:
        node.begin(trial.job(nodes=2), 1, heard)
        yield heard
    finally:
        node._channel.close()


def test_a_fault_of_another_machine_names_it(trial: FollowedTrial) -> None:
    with _begun_there(trial) as heard:
        trial.says(WorkerFault(fault=Fault.FILES, message="/data is not there"))
        assert heard.get(timeout=60) == (1, WorkerFault(fault=Fault.FILES, message="on other: /data is not there"))


@pytest.mark.parametrize("is_asked", [False, True], ids=["lost", "asked to end"])
def test_a_follower_that_is_gone_before_it_has_begun_is_no_fault(trial: FollowedTrial, is_asked: bool) -> None:
    if is_asked:
        trial.channel.send(Leaving().model_dump_json())
    trial.channel.close()
    with _begun_there(trial) as heard:
        said = iter(lambda: heard.get(timeout=60), None)
        assert next(one for one in said if not isinstance(one[1], Leaving)) == (0, Interrupted(checkpoint=None))
