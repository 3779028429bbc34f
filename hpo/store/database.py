"""The connection pool: transactions in, `StoreUnavailableError` out when Postgres is away."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from ..errors import SetupError, StoreUnavailableError
from .notifications import Channel, Listener
from .wire import WireConnection

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 1.0
"""A connection that was not used for so long is asked for a sign of life first. In a shorter time few die, and then a
call is refused that may be repeated."""
MAX_OVERFLOW: Final = 10
_REMINDER_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 5.0
"""An outage that begins so soon after the last message is not mentioned."""

_SINGLE: Final = "is_single"
"""The option of connections on which each statement is a transaction of its own."""
_SESSION: Final = (
    "SET TIME ZONE 'UTC'; SET lock_timeout = '20s'; SET statement_timeout = '60s'; "
    "SET idle_in_transaction_session_timeout = '60s'; "
    # Nothing of ours runs long enough: of 1.25 s in which the studies were read at 90,000 trials, 0.89 were compiling.
    "SET jit = off"
)


class Database:
    """A pool of connections to one Postgres database; safe to share between threads, not over a fork."""

    def __init__(self, url: str, *, pool_size: int = 20, max_overflow: int = MAX_OVERFLOW) -> None:
        self._engine = make_engine(url, pool_size=pool_size, max_overflow=max_overflow)
        self._single = self._engine.execution_options(**{_SINGLE: True})
        self._outage = OutageLog()

    def __repr__(self) -> str:
        return f"Database({self._engine.url.render_as_string(hide_password=True)!r})"

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction that commits at the end of the block and rolls back when it raises.

        Raises:
            StoreUnavailableError: Postgres cannot be reached, went away meanwhile, or a lock took too long.
        """
        with unavailable(self._outage), self._engine.begin() as connection:
            self._outage.over()
            yield connection

    @contextmanager
    def statements(self) -> Iterator[Connection]:
        """Open a connection on which each statement is a transaction of its own, for reading in one round trip.

        Raises:
            StoreUnavailableError: as in `transaction`.
        """
        with unavailable(self._outage), self._single.connect() as connection:
            self._outage.over()
            yield connection

    def listen(self, channel: Channel) -> Listener:
        """Return what hears of a channel, over a connection of its own; nothing is sent before its first wait."""
        url = self._engine.url.set(drivername="postgresql")
        return Listener(url.render_as_string(hide_password=False), channel)

    def beside(self, *, pool_size: int, max_overflow: int) -> Database:
        """Return another pool of connections to the same database; of an outage both speak once."""
        url = self._engine.url.render_as_string(hide_password=False)
        other = Database(url, pool_size=pool_size, max_overflow=max_overflow)
        other._outage = self._outage
        return other

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._engine.dispose()


class OutageLog:
    """Says once that a database is away, then once a minute, and when it is back; safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._said = -math.inf
        self._lock = threading.Lock()

    def begun(self, reason: str) -> None:
        """Note that a transaction has failed."""
        with self._lock:
            now = self._clock()
            is_new, self._since = self._since is None, now if self._since is None else self._since
            # What fails and works by turns is said every few seconds.
            if now - self._said < (_PAUSE_SECONDS if is_new else _REMINDER_SECONDS):
                return
            self._said = now
        log.warning("the database is unavailable: %s", reason)

    def over(self) -> None:
        """Note that a transaction has begun."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
            if since is not None and self._said >= since:
                log.warning("the database answers again, after %.0f s", self._clock() - since)


@contextmanager
def unavailable(outage: OutageLog | None = None) -> Iterator[None]:
    """Turn the driver's errors about the connection into `StoreUnavailableError`; others pass."""
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreUnavailableError("all database connections are in use; try again shortly") from error
    except DBAPIError as error:
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
            (outage or OutageLog()).begun(" ".join(str(error.orig).split()))
            raise StoreUnavailableError from error
        raise


def make_engine(url: str, *, pool_size: int = 20, max_overflow: int = MAX_OVERFLOW) -> Engine:
    """Make an engine for a `postgresql://` address, whichever driver it names.

    It keeps `pool_size` connections, and opens `max_overflow` more where all are in use.

    Raises:
        SetupError: the address is none of a Postgres database.
    """
    engine = create_engine(
        _with_driver(url),
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=10,
        connect_args={
            "connect_timeout": 5,
            "application_name": "video-hpo",
            "connection_factory": WireConnection,
        },
    )
    event.listen(engine, "begin", _begin)
    event.listen(engine, "connect", _set_session)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(_check_idle, engine))
    return engine


def _with_driver(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SetupError("the database address cannot be read; write postgresql://USER:PASSWORD@HOST/NAME") from error
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SetupError(f"the database must be Postgres, but its address begins with {parsed.drivername!r}")
    return parsed.set(drivername="postgresql+psycopg2")


def _begin(connection: Connection) -> None:
    wire = connection.connection.dbapi_connection
    if isinstance(wire, WireConnection) and not connection.get_execution_options().get(_SINGLE):
        wire.begin()


def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _check_idle(engine: Engine, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ask a connection that was idle for a while for a sign of life: the pool replaces a dead one, and all others."""
    used_at = record.info.get("used_at")
    if used_at is None or time.monotonic() - used_at < IDLE_SECONDS:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _set_session(connection: Any, _record: object) -> None:
    # Not by the `options` of the connection string, which poolers refuse.
    with connection.cursor() as cursor:
        cursor.execute(_SESSION)
    connection.commit()
