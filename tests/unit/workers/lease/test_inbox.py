"""The inbox: messages of the present lease and of the whole worker, and none of an earlier trial."""

from __future__ import annotations

from uuid import UUID

from workers.lease.inbox import Inbox, Shutdown
from workers.process.messages import Note

THIS, EARLIER = UUID(int=1), UUID(int=2)


def test_messages_arrive_in_order() -> None:
    inbox = Inbox()
    for text in ("a", "b"):
        inbox.put(Note(text=text), lease_id=THIS)
    inbox.put(Shutdown())
    received = [inbox.get(lease_id=THIS, timeout_seconds=None) for _ in range(3)]
    assert received == [Note(text="a"), Note(text="b"), Shutdown()]


def test_a_late_message_about_an_earlier_trial_is_dropped() -> None:
    inbox = Inbox()
    inbox.put(Note(text="late"), lease_id=EARLIER)
    inbox.put(Note(text="mine"), lease_id=THIS)
    assert inbox.get(lease_id=THIS, timeout_seconds=None) is None
    assert inbox.get(lease_id=THIS, timeout_seconds=None) == Note(text="mine")


def test_between_two_trials_only_messages_about_the_worker_count() -> None:
    inbox = Inbox()
    inbox.put(Note(text="late"), lease_id=EARLIER)
    inbox.put(Shutdown())
    assert inbox.get(lease_id=None, timeout_seconds=None) is None
    assert inbox.get(lease_id=None, timeout_seconds=None) == Shutdown()


def test_without_a_message_the_time_runs_out() -> None:
    assert Inbox().get(lease_id=THIS, timeout_seconds=0.0) is None
