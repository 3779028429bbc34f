"""The connection pool: transactions in, `StoreUnavailableError` out when Postgres is away."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..errors import SetupError, StoreUnavailableError

log = logging.getLogger(__name__)

_SESSION = (
    "SET TIME ZONE 'UTC'; SET lock_timeout = '20s'; SET statement_timeout = '60s'; "
    "SET idle_in_transaction_session_timeout = '60s'"
)


class Database:
    """A pool of connections to one Postgres database; safe to share between threads, not over a fork."""

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self._engine = make_engine(url, pool_size=pool_size)

    def __repr__(self) -> str:
        return f"Database({self._engine.url.render_as_string(hide_password=True)!r})"

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction that commits at the end of the block and rolls back when it raises.

        Raises:
            StoreUnavailableError: Postgres cannot be reached, went away meanwhile, or a lock took too long.
        """
        with unavailable(), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._engine.dispose()


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn the driver's errors about the connection into `StoreUnavailableError`; others pass."""
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreUnavailableError("all database connections are in use; try again shortly") from error
    except DBAPIError as error:
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
            log.warning("the database is unavailable: %s", " ".join(str(error.orig).split()))
            raise StoreUnavailableError from error
        raise


def make_engine(url: str, *, pool_size: int = 20) -> Engine:
    """Make an engine for a `postgresql://` address, whichever driver it names.

    Raises:
        SetupError: the address is none of a Postgres database.
    """
    engine = create_engine(
        _with_driver(url),
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=10,
        pool_timeout=10,
        connect_args={"connect_timeout": 5, "application_name": "video-hpo"},
    )
    event.listen(engine, "connect", _set_session)
    return engine


def _with_driver(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SetupError("the database address cannot be read; write postgresql://USER:PASSWORD@HOST/NAME") from error
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SetupError(f"the database must be Postgres, but its address begins with {parsed.drivername!r}")
    return parsed.set(drivername="postgresql+psycopg2")


def _set_session(connection: Any, _record: object) -> None:
    # Not by the `options` of the connection string, which poolers refuse.
    with connection.cursor() as cursor:
        cursor.execute(_SESSION)
    connection.commit()
