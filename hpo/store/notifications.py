"""Saying and hearing that something has changed, between the processes of the service (Postgres' LISTEN and NOTIFY).

It only shortens a wait. Nothing depends on it: whoever waits looks again after a while by itself, since a notification
is lost while a connection is away, or where a pooler between does not pass it on.
"""

from __future__ import annotations

import logging
import select
import time
from enum import StrEnum
from typing import Any, Final

import psycopg2
from sqlalchemy import Connection, text

from .wire import later

log = logging.getLogger(__name__)

RECONNECT_SECONDS: Final = 1.0
_NOTIFY: Final = text("SELECT pg_notify(CAST(:channel AS text), '')")


class Channel(StrEnum):
    """What may be said."""

    TRIALS = "hpo_trials"
    """There may be a trial for a worker that found none."""
    WANTED = "hpo_wanted"
    """A worker found none."""


def announce(connection: Connection, channel: Channel) -> None:
    """Say something when the transaction commits; several times in one are once."""
    later(connection, _NOTIFY, {"channel": channel})


class Listener:
    """Hears what is said in one channel. For one thread."""

    def __init__(self, dsn: str, channel: Channel) -> None:
        self._dsn = dsn
        self._channel = channel
        self._connection: Any = None
        self._tried_at = -RECONNECT_SECONDS

    def wait(self, seconds: float) -> bool:
        """Wait until something is said, at most `seconds`; return whether it was, since the last time.

        While the database is away it waits for the whole time and hears nothing. What was said meanwhile is lost, so a
        new connection counts as if something was.
        """
        ends = time.monotonic() + seconds
        if self._connection is None and self._connect():
            return True
        try:
            if self._connection is not None and self._heard(ends - time.monotonic()):
                return True
        except psycopg2.Error:
            self.close()
        time.sleep(max(ends - time.monotonic(), 0.0))
        return False

    @property
    def is_connected(self) -> bool:
        """Whether it would hear something."""
        return self._connection is not None

    def close(self) -> None:
        """Hear nothing any more, until the next `wait`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> bool:
        if time.monotonic() - self._tried_at < RECONNECT_SECONDS:
            return False
        self._tried_at = time.monotonic()
        try:
            connection = psycopg2.connect(self._dsn, connect_timeout=5, application_name="video-hpo listener")
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {self._channel}")
        except psycopg2.Error as error:
            log.debug("nothing is heard of the database: %s", error)  # who uses it says that it is away
            return False
        self._connection = connection
        return True

    def _heard(self, seconds: float) -> bool:
        if not self._connection.notifies:
            waiting = select.poll()
            waiting.register(self._connection.fileno(), select.POLLIN)
            waiting.poll(1000 * max(seconds, 0.0))
            self._connection.poll()
        heard = bool(self._connection.notifies)
        self._connection.notifies.clear()
        return heard
