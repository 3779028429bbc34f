"""The followers that a leader waits for, and the leader that a follower waits for, over real connections."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from workers.device.detection import cpu_device
from workers.process import follower as follower_module
from workers.process import group
from workers.process.channel import Channel, Line, accept, connect, listener
from workers.process.follower import Follower, FollowerConfig
from workers.process.group import FROM_FOLLOWER, FROM_LEADER, Ask, Followers, Hello, Leaving, Over, Refused

TOKEN = "hpo_secret"  # noqa: S105 - of no service
DEADLINE_SECONDS = 60.0


def hello(node: int, **changes: Any) -> Hello:
    """Return how a machine of a group of two introduces itself."""
    alike = {"nodes": 2, "device": "cpu", "gpus": 1, "gpu_name": None, "bf16": False, "deterministic": False}
    return Hello(**{**alike, "node": node, "host": f"host-{node}", "version": "1", "torch": "2", **changes})


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        os.sched_yield()


class Listening(socket.socket):
    """A socket that listens, and at first has no handle for a connection."""

    failures = 0

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@pytest.fixture
def listening() -> Iterator[Listening]:
    with listener("127.0.0.1", 0) as made, Listening(fileno=os.dup(made.fileno())) as listening:
        yield listening


@pytest.fixture
def address(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Where the followers of a test connect."""
    monkeypatch.setattr(group, "listener", lambda *_: listening)
    monkeypatch.setattr(group, "_GOODBYE_SECONDS", 0.0)
    host, port = listening.getsockname()
    return host, port


@pytest.fixture
def followers(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Followers]:
    """The followers of a leader, with as many handshakes at once as the parameter says."""
    monkeypatch.setattr(group, "_MOST_HANDSHAKES", getattr(request, "param", 8))
    made = Followers(address, TOKEN, hello(0))
    yield made
    for channel, _ in made.take():
        channel.close()
    made.dismiss()


def _followed(address: tuple[str, int], node: int = 1, **changes: Any) -> Channel:
    return connect(address, TOKEN, hello(node, **changes).model_dump_json())


def _taken(followers: Followers) -> list[tuple[Channel, Line]]:
    wait_until(followers.are_there)
    return followers.take()


def _answer(channel: Channel) -> Any:
    return FROM_LEADER.validate_json(next(channel.received()))


def test_a_leader_goes_on_listening_after_a_time_without_handles(
    followers: Followers, address: tuple[str, int], listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "_REFUSED_SECONDS", 0.0)
    listening.failures = 2
    _followed(address).close()  # taken by the call that waits already; the next ones fail
    first = _followed(address)
    wait_until(followers.are_there)
    first.close()
    wait_until(lambda: not followers.are_there())
    again = _followed(address)
    wait_until(followers.are_there)
    with monkeypatch.context() as longer:
        longer.setattr(group, "_GOODBYE_SECONDS", DEADLINE_SECONDS)
        followers.dismiss()
    assert isinstance(_answer(again), Over)
    again.close()
    wait_until(lambda: not any(thread.name == "followers" for thread in threading.enumerate()))


@pytest.mark.parametrize("followers", [1], indirect=True)
def test_those_who_say_nothing_take_no_more_than_so_many_threads(
    followers: Followers, address: tuple[str, int]
) -> None:
    with socket.create_connection(address) as silent:
        assert silent.recv(5) == b"video"
        with socket.create_connection(address) as next_one:
            assert select.select([next_one], [], [], 0.05)[0] == [], "it waits in the queue of the kernel"
            silent.close()
            assert next_one.recv(5) == b"video"
    follower = _followed(address)
    wait_until(followers.are_there)
    follower.close()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"deterministic": True}, "the machines of a group must be alike: deterministic is True on host-1, False on"),
        ({"torch": "3"}, "the machines of a group must be alike: torch is 3 on host-1, 2 on host-0"),
        ({"node": 2}, "there is no follower of node rank 2: they count from 1 to 1"),
    ],
)
def test_a_follower_that_does_not_fit_is_told_why(
    followers: Followers, address: tuple[str, int], changes: dict[str, Any], problem: str
) -> None:
    first = _followed(address)
    wait_until(followers.are_there)
    other = _followed(address, **{"node": 1, **changes})
    refused = _answer(other)
    assert isinstance(refused, Refused)
    assert refused.message.startswith(problem)
    assert followers.are_there()
    for channel in (first, other):
        channel.close()


def test_a_follower_whose_place_is_taken_is_refused_while_the_other_one_answers(
    followers: Followers, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "_ANSWER_SECONDS", DEADLINE_SECONDS)
    following = Following(address)
    following.start()
    wait_until(followers.are_there)
    for host in ("host-9", "host-10"):
        other = _followed(address, host=host)
        refused = _answer(other)
        assert isinstance(refused, Refused)
        assert refused.message == "node rank 1 is taken by host-1"
        assert followers.are_there(), "its answer has been read"
        other.close()
    ((channel, line),) = followers.take()
    # As the process of a trial does, which counts the lines on.
    taken = Channel.of_line(line.model_copy(update={"handle": os.dup(line.handle)}))
    taken.send(Over().model_dump_json())
    following.join(DEADLINE_SECONDS)
    assert not following.is_alive()
    for one in (channel, taken):
        one.close()


@pytest.mark.parametrize("last_words", [None, Leaving(), "no line of it"])
def test_a_follower_that_was_restarted_joins_at_once_although_the_earlier_connection_is_open(
    followers: Followers, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, last_words: Leaving | str | None
) -> None:
    monkeypatch.setattr(group, "_ANSWER_SECONDS", 0.01 if last_words is None else DEADLINE_SECONDS)
    lost = _followed(address)
    wait_until(followers.are_there)
    restarted = _followed(address, host="host-9")
    assert isinstance(_answer(lost), Ask)
    if isinstance(last_words, Leaving):
        lost.send(last_words.model_dump_json())
    elif last_words is not None:
        lost._sock.sendall(f"{last_words}\n".encode())
    assert next(lost.received(), None) is None, "it is closed"
    ((channel, line),) = _taken(followers)
    assert line.host == "host-9"
    for one in (lost, restarted, channel):
        one.close()


class Following(threading.Thread):
    """A follower, in a thread."""

    def __init__(self, address: tuple[str, int], *, exit_when_idle_seconds: float | None = None) -> None:
        super().__init__()
        config = FollowerConfig(
            hello=hello(1),
            address=address,
            device=cpu_device(threads=1),
            own={},
            exit_when_idle_seconds=exit_when_idle_seconds,
        )
        self.follower = Follower(config, TOKEN)

    def run(self) -> None:
        self.follower.run()


def test_a_follower_waits_for_its_leader_longer_than_for_trials(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    following = Following(address, exit_when_idle_seconds=2.0)

    def pass_time(_: float) -> bool:
        now[0] += 100.0
        return False

    monkeypatch.setattr(following.follower, "_is_asked_within", pass_time)
    following.follower.run()
    assert caplog.messages[-1] == "no leader for 600 s; ending"


def test_a_follower_waits_for_a_leader_that_ended_during_the_handshake_and_says_when_it_ends_itself(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_RETRY_SECONDS", 0.0)
    following = Following(listening.getsockname())
    following.start()
    sock, _ = listening.accept()
    with sock:
        sock.sendall(b"video-hpo-group-1 00\n")
        sock.recv(4096)
    channel, _ = accept(listening.accept()[0], TOKEN)
    following.follower._on_signal(signal.SIGTERM, None)
    following.join()
    lines = channel.received()
    assert isinstance(FROM_FOLLOWER.validate_json(next(lines)), Leaving), "a trial may have been on its way"
    assert next(lines, None) is None
    channel.close()
