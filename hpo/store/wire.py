"""Connections to Postgres that send several statements as one message, so that a call waits for few answers.

A transaction begins with its first statement, in the same message. A statement whose result nobody reads (`later`)
travels with the next one, or with the commit. All are executed in the order in which they were given; an error of one
that travelled is raised where its message is sent, before the commit in any case.

Statements that every call of a worker makes are prepared once per connection (`prepared`, `later`): Postgres would
spend more time on parsing and planning them than on executing them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import psycopg2
from psycopg2 import errors, extensions
from sqlalchemy import Connection, Result, TextClause
from sqlalchemy.dialects.postgresql import psycopg2 as dialect
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import DBAPIError

from ..errors import SetupError

_BEGIN: Final = b"BEGIN"
_DROP_ALL: Final = b"DEALLOCATE ALL"
_BETWEEN: Final = b";\n"
_DIALECT: Final = dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy left its types out
_PARAMETER: Final = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A statement in the two forms that Postgres needs of it."""

    code: str
    """With $1, $2 and so on."""
    names: tuple[str, ...]
    """Of its parameters."""

    @property
    def arguments(self) -> str:
        """The end of a call, as a template of psycopg2."""
        return f"({', '.join(f'%({name})s' for name in self.names)})" if self.names else ""


class WireConnection(extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
    """A connection of psycopg2 that is told of the beginning of a transaction, and sends it when it has to."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.autocommit = True  # the driver would send the beginning by itself, and wait for the answer
        self.cursor_factory = _Cursor
        self._waiting: list[bytes] = []
        self._is_in_transaction = False
        self._has_transactions = True
        self._prepared: dict[_Prepared, str] = {}
        self._failures = 0
        self._has_stale = False

    def set_isolation_level(self, level: int | None) -> None:
        """Have transactions, or, at the level of SQLAlchemy's AUTOCOMMIT, none."""
        self._has_transactions = level != extensions.ISOLATION_LEVEL_AUTOCOMMIT

    def begin(self) -> None:
        """Begin a transaction with the next statement."""
        if self._has_transactions:
            self._waiting.append(_BEGIN)
            self._is_in_transaction = True
            self._drop_stale()

    def call_of(self, statement: _Prepared) -> str:
        """Return how a prepared statement is called; where it is new here, it is prepared with the next message."""
        if not self._is_in_transaction:
            self._drop_stale()
        name = self._prepared.get(statement)
        if name is None:
            name = f"hpo_{len(self._prepared)}_{self._failures}"
            self._prepared[statement] = name
            self._waiting.append(f"PREPARE {name} AS {statement.code}".encode())
        return f"EXECUTE {name} {statement.arguments}"

    def later(self, statement: _Prepared, values: Mapping[str, Any]) -> None:
        """Execute a statement before the next one, or before the commit."""
        call = self.call_of(statement)
        with extensions.connection.cursor(self) as cursor:
            self._waiting.append(cursor.mogrify(call, values))

    @property
    def is_waiting(self) -> bool:
        """Whether a statement waits to be sent."""
        return bool(self._waiting)

    def take(self) -> list[bytes]:
        """Return the statements that wait, which the caller sends."""
        taken, self._waiting = self._waiting, []
        return taken

    def forget_prepared(self) -> None:
        """Prepare all statements anew, under other names: after an error it is not known which ones there are.

        Those that are there are dropped when the next transaction begins, since a failed one executes nothing more.
        """
        self._prepared.clear()
        self._failures += 1
        self._has_stale = True

    def _drop_stale(self) -> None:
        if self._has_stale:
            self._prepared.clear()
            self._waiting.append(_DROP_ALL)
            self._has_stale = False

    def commit(self) -> None:
        """Send what waits, and commit."""
        waiting = self.take()
        if self._is_in_transaction and waiting != [_BEGIN]:
            waiting.append(b"COMMIT")
        self._send([] if waiting == [_BEGIN] else waiting)
        self._is_in_transaction = False

    def rollback(self) -> None:
        """Forget what waits, and roll back."""
        waiting = self.take()
        if any(statement.startswith(b"PREPARE ") or statement == _DROP_ALL for statement in waiting):
            self.forget_prepared()
        if self._is_in_transaction and _BEGIN not in waiting:
            self._send([b"ROLLBACK"])
        self._is_in_transaction = False

    def _send(self, statements: list[bytes]) -> None:
        if statements:
            with self.cursor() as cursor:
                cursor.execute(_BETWEEN.join(statements))


class _Cursor(extensions.cursor):  # type: ignore[misc]  # psycopg2 has no types
    """A cursor that sends what waits together with its own statement."""

    def execute(self, query: Any, vars: Any = None) -> Any:
        """Execute what waits, and a statement; the result is that of the statement."""
        with self._forgetting():
            if self.connection.is_waiting:
                own = self.mogrify(query, vars)  # before anything is taken: it fails where a value cannot be sent
                query, vars = _BETWEEN.join([*self.connection.take(), own]), None
            return super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> Any:
        """Execute what waits, and then a statement for each of several rows."""
        with self._forgetting():
            if self.connection.is_waiting:
                super().execute(_BETWEEN.join(self.connection.take()))
            return super().executemany(query, vars_list)

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Forget what is prepared when the block fails."""
        try:
            yield
        except errors.InvalidSqlStatementName as error:
            self.connection.forget_prepared()
            raise SetupError(
                "the database forgot a statement that was prepared on its connection: a pooler between must "
                "keep one connection for each client (for PgBouncer: pool_mode = session)"
            ) from error
        except Exception:
            self.connection.forget_prepared()
            raise


def prepared(connection: Connection, statement: TextClause, values: Mapping[str, Any]) -> Result[Any]:
    """Execute a statement that returns rows and is prepared on the connection; `values` has all of its parameters.

    It goes past SQLAlchemy, which would find out anew for each answer what its columns are. Errors are as they are
    there.
    """
    wire = _wire(connection)
    with _errors_of(connection, statement, values), wire.cursor() as cursor:
        cursor.execute(wire.call_of(_form_of(statement)), values)
        names = tuple(column.name for column in cursor.description)
        return IteratorResult(_columns(names), iter(cursor.fetchall()))


def later(connection: Connection, statement: TextClause, values: Mapping[str, Any]) -> None:
    """Execute a statement whose result nobody reads; it is sent with the next one, or with the commit."""
    _wire(connection).later(_form_of(statement), values)


def _wire(connection: Connection) -> WireConnection:
    wire = connection.connection.dbapi_connection
    if not isinstance(wire, WireConnection):
        raise TypeError("only connections of `hpo.store.database` send statements together")
    return wire


@contextmanager
def _errors_of(connection: Connection, statement: TextClause, values: Mapping[str, Any]) -> Iterator[None]:
    """Raise the errors of the driver in the block as SQLAlchemy does, and give up a connection that is gone."""
    try:
        yield
    except psycopg2.Error as error:
        is_gone = bool(connection.dialect.is_disconnect(error, connection.connection.driver_connection, None))
        if is_gone:
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement.text,
            dict(values),
            error,
            psycopg2.Error,
            connection_invalidated=is_gone,
            dialect=connection.dialect,
        ) from error


@cache
def _columns(names: tuple[str, ...]) -> SimpleResultMetaData:
    return SimpleResultMetaData(names)


@cache
def _form_of(statement: TextClause) -> _Prepared:
    compiled = str(statement.compile(dialect=_DIALECT))
    names = tuple(dict.fromkeys(_PARAMETER.findall(compiled)))
    code = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", compiled).replace("%%", "%")
    return _Prepared(code=code, names=names)
