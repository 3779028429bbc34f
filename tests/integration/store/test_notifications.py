"""What is said is heard after the commit and not before; a lost connection is made again, and counts as news."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from hpo.store import Database, notifications
from hpo.store.notifications import Channel, Listener, announce


@pytest.fixture
def listener(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """A listener that has heard everything so far."""
    monkeypatch.setattr(notifications, "RECONNECT_SECONDS", 0.0)
    listening = database.listen(Channel.TRIALS)
    assert listening.wait(0.0), "what was said before is not known"
    assert not listening.wait(0.0)
    yield listening
    listening.close()


def say(database: Database, channel: Channel = Channel.TRIALS) -> None:
    with database.transaction() as connection:
        announce(connection, channel)


def test_what_is_said_is_heard_after_the_commit(database: Database, listener: Listener) -> None:
    with database.transaction() as connection:
        announce(connection, Channel.TRIALS)
        announce(connection, Channel.TRIALS)
        connection.execute(text("SELECT 1"))
        assert not listener.wait(0.0)
    assert listener.wait(30.0)
    assert not listener.wait(0.0), "said twice in one transaction is once"


def test_what_was_taken_back_and_other_channels_are_not_heard(database: Database, listener: Listener) -> None:
    with database.transaction() as connection:
        announce(connection, Channel.TRIALS)
        connection.rollback()
    say(database, Channel.WANTED)
    assert not listener.wait(0.2)


def test_a_lost_connection_is_made_again(database: Database, listener: Listener) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'video-hpo listener'"
            )
        )
    # The driver reads why before it finds the end. What was said meanwhile is not known: a new connection is news.
    assert any([listener.wait(1.0) for _ in range(4)])
    say(database)
    assert listener.wait(30.0)


def test_without_a_database_nothing_is_heard() -> None:
    nowhere = Listener("postgresql://nobody@127.0.0.1:1/nothing", Channel.TRIALS)
    assert not nowhere.wait(0.0)
    assert not nowhere.is_connected
    nowhere.close()
