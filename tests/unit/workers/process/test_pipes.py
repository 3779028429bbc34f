"""The child's ends of its pipes: commands that come in, events that go out, and a worker that has ended."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from workers.process.messages import EVENTS, Command, Note
from workers.process.pipes import ORPHANED, EventPipe, Mailbox

PATIENCE_SECONDS = 30.0


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[int]:
    """The statuses with which the process would have ended."""
    found: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(os, "_exit", found.put)
    return found


Receive = Callable[..., Mailbox]


@pytest.fixture
def receive(exits: queue.Queue[int]) -> Receive:
    """Make a mailbox that has read these commands, after which its worker has ended."""

    def mailbox(*commands: Command) -> Mailbox:
        made = Mailbox(io.StringIO("".join(command.model_dump_json() + "\n" for command in commands)))
        assert exits.get(timeout=PATIENCE_SECONDS) == ORPHANED, "nobody takes the result any more"
        for thread in [thread for thread in threading.enumerate() if thread.name == "commands"]:
            thread.join(PATIENCE_SECONDS)
        return made

    return mailbox


@pytest.mark.parametrize(("epoch", "left"), [(1, 2), (2, 1), (3, 0)])
def test_the_wait_for_an_answer_passes_over_those_to_earlier_epochs(receive: Receive, epoch: int, left: int) -> None:
    mailbox = receive(*[Command(action="continue", epoch=number) for number in (1, 2, 3)])
    mailbox.wait_for_answer(epoch, PATIENCE_SECONDS)
    assert mailbox._answers.qsize() == left
    assert mailbox.request is None


def test_who_trains_hears_at_once_that_it_is_to_end(exits: queue.Queue[int]) -> None:
    read, write = os.pipe()
    heard: queue.Queue[str] = queue.Queue()
    with os.fdopen(read) as stream, os.fdopen(write, "w") as commands:
        mailbox = Mailbox(stream)
        mailbox.on_request = lambda: heard.put(mailbox.request.action if mailbox.request else "nothing")
        for command in (Command(action="continue", epoch=1), Command(action="pause")):
            commands.write(command.model_dump_json() + "\n")
        commands.flush()
        assert heard.get(timeout=PATIENCE_SECONDS) == "pause"
        commands.close()
        assert exits.get(timeout=PATIENCE_SECONDS) == ORPHANED
    assert heard.empty()


@pytest.mark.parametrize("action", ["stop", "pause", "drain"])
def test_a_request_stays_and_nothing_is_waited_for_any_more(receive: Receive, action: Any) -> None:
    mailbox = receive(Command(action=action), Command(action="continue", epoch=1))
    assert mailbox.request == Command(action=action)
    mailbox.wait_for_answer(2, PATIENCE_SECONDS)
    assert mailbox._answers.qsize() == 2, "no answer was taken"


def test_the_newest_request_counts(receive: Receive) -> None:
    assert receive(Command(action="pause"), Command(action="drain")).request == Command(action="drain")


def test_without_an_answer_the_wait_ends_with_its_time(receive: Receive) -> None:
    mailbox = receive()
    mailbox.wait_for_answer(1, 0.0)
    mailbox.wait_for_answer(1, 0.001)
    assert mailbox.request is None


def test_events_are_lines_of_json() -> None:
    read, write = os.pipe()
    pipe = EventPipe(write)
    pipe.send(Note(text="a\nb"))
    pipe._file.close()  # which in the training process lives as long as the process
    with os.fdopen(read, encoding="utf-8") as stream:
        assert EVENTS.validate_json(stream.readline()) == Note(text="a\nb")


def test_sending_to_a_worker_that_has_ended_ends_the_process(exits: queue.Queue[int]) -> None:
    read, write = os.pipe()
    os.close(read)
    pipe = EventPipe(write)
    pipe.send(Note(text="anybody?"))
    assert exits.get_nowait() == ORPHANED
    with contextlib.suppress(BrokenPipeError):
        pipe._file.close()
