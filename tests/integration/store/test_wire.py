"""Statements that travel together: nothing is lost, doubled, reordered, or executed without its transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from hpo.errors import StoreUnavailableError
from hpo.store import Database
from hpo.store.tables import event
from hpo.store.wire import later, prepared
from tests.postgres_proxy import Questions, counted

_ADD = text("INSERT INTO event (kind, actor, detail) VALUES (:kind, 'test', CAST(:detail AS jsonb))")
_KINDS = text("SELECT kind FROM event ORDER BY id")
_ONE = text("SELECT 1 AS one")


@pytest.fixture
def asked(database_url: str) -> Iterator[tuple[Database, Questions]]:
    """A database, and what it is asked."""
    with counted(database_url) as (url, questions):
        database = Database(url, pool_size=1)
        with database.transaction() as connection:
            connection.execute(_ONE)
        questions.take()
        yield database, questions
        database.close()


def add(connection: Connection, kind: str, detail: str = "{}") -> None:
    later(connection, _ADD, {"kind": kind, "detail": detail})


def kinds(database: Database) -> list[Any]:
    with database.statements() as connection:
        return list(connection.execute(_KINDS).scalars())


def test_a_transaction_is_as_many_messages_as_answers_are_read_and_one_for_the_commit(
    asked: tuple[Database, Questions],
) -> None:
    database, questions = asked
    with database.transaction() as connection:
        add(connection, "first")
        assert connection.execute(_ONE).scalar_one() == 1
        add(connection, "second")
        add(connection, "third")
    assert len(questions.take()) == 2
    assert kinds(database) == ["first", "second", "third"]
    assert len(questions.take()) == 1


def test_a_transaction_in_which_nothing_happens_asks_nothing(asked: tuple[Database, Questions]) -> None:
    database, questions = asked
    with database.transaction():
        pass
    assert questions.take() == []


def test_what_waits_is_seen_by_the_statement_after_it(database: Database) -> None:
    with database.transaction() as connection:
        add(connection, "one")
        assert list(connection.execute(_KINDS).scalars()) == ["one"]
        assert connection.execute(text("SELECT '100%' AS share, ':' AS colon")).one() == ("100%", ":")


def run(database: Database, *steps: Callable[[Connection], object]) -> None:
    """Do some steps in one transaction."""
    with database.transaction() as connection:
        for step in steps:
            step(connection)


def adding(kind: str, detail: str = "{}") -> Callable[[Connection], object]:
    return lambda connection: add(connection, kind, detail)


def asking(connection: Connection) -> None:
    assert prepared(connection, _ONE, {}).scalar_one() == 1


def failing(_: Connection) -> None:
    raise ZeroDivisionError


def inserting_in_vain(connection: Connection) -> None:
    with connection.begin_nested():
        add(connection, "inside")
        connection.execute(text("INSERT INTO trial (study_id, number, params, generator) VALUES (-1, 0, '{}', 'x')"))
        connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


def test_what_waits_is_gone_with_its_transaction(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        run(database, adding("unsent"), failing)
    with pytest.raises(ZeroDivisionError):
        run(database, adding("sent"), asking, adding("unsent"), failing)
    run(database, asking)
    assert kinds(database) == []


def test_a_statement_that_fails_on_its_way_commits_nothing_and_harms_no_later_one(database: Database) -> None:
    with pytest.raises(DBAPIError):
        run(database, adding("good"), adding("bad", "no JSON"))
    with pytest.raises(DBAPIError):
        run(database, adding("bad", "no JSON"), asking)
    for _ in range(2):
        run(database, adding("good"), asking)
    assert kinds(database) == ["good", "good"]


def test_savepoints_keep_their_place_among_what_waits(database: Database) -> None:
    with database.transaction() as connection:
        add(connection, "before")
        with pytest.raises(IntegrityError):
            inserting_in_vain(connection)
        add(connection, "after")
    assert kinds(database) == ["before", "after"]


def test_many_rows_of_one_statement_come_after_what_waits(database: Database) -> None:
    rows: list[dict[str, Any]] = [{"kind": kind, "actor": "test", "detail": {}} for kind in ("second", "third")]
    with database.transaction() as connection:
        add(connection, "first")
        connection.execute(insert(event), rows)
        add(connection, "fourth")
        connection.connection.cursor().executemany("UPDATE event SET actor = %s WHERE kind = %s", [("you", "fourth")])
    assert kinds(database) == ["first", "second", "third", "fourth"]
    with database.statements() as connection:
        assert connection.execute(text("SELECT actor FROM event WHERE kind = 'fourth'")).scalar_one() == "you"


def test_statements_on_their_own_are_not_rolled_back_together(database: Database) -> None:
    with database.statements() as connection:
        connection.execute(text("INSERT INTO event (kind, actor, detail) VALUES ('kept', 'test', '{}')"))
        with pytest.raises(ProgrammingError):
            connection.execute(text("SELECT FROM nowhere"))
    assert kinds(database) == ["kept"]


def test_a_prepared_statement_takes_values_of_all_kinds(database: Database) -> None:
    query = text("SELECT CAST(:number AS int) + 1 AS number, CAST(:word AS text) AS word, :many = ANY (ARRAY['a%b'])")
    with database.transaction() as connection:
        for word in ("it's", None, "100%s", "\\x"):
            row = prepared(connection, query, {"number": 1, "word": word, "many": "a%b"}).one()
            assert row == (2, word, True)


def test_rows_of_a_prepared_statement_are_read_by_name_each_time(database: Database) -> None:
    query = text("SELECT CAST(:number AS int) AS number, CAST('{\"a\": [1.5]}' AS jsonb) AS found, NULL AS nothing")
    with database.transaction() as connection:
        for number in (1, 2):
            row = prepared(connection, query, {"number": number}).mappings().one()
            assert dict(row) == {"number": number, "found": {"a": [1.5]}, "nothing": None}
            assert prepared(connection, query, {"number": number}).one().found == {"a": [1.5]}
        none = text("SELECT CAST(:number AS int) AS number WHERE false")
        assert prepared(connection, none, {"number": 1}).one_or_none() is None


def test_errors_of_a_prepared_statement_are_those_of_any_other(database: Database) -> None:
    query = text("INSERT INTO trial (study_id, number, params, generator) VALUES (:id, 0, '{}', 'x') RETURNING id")
    with pytest.raises(IntegrityError, match="trial_study_id_fkey"):
        run(database, lambda connection: prepared(connection, query, {"id": -1}))
    with pytest.raises(DBAPIError, match="division by zero"):
        run(database, lambda connection: prepared(connection, text("SELECT 1 / CAST(:by AS int)"), {"by": 0}))
    run(database, asking)


def test_a_connection_that_is_gone_is_said_to_be_and_replaced(database_url: str) -> None:
    database, other = (Database(database_url, pool_size=1, max_overflow=0) for _ in range(2))
    with database.transaction() as connection:
        process = prepared(connection, text("SELECT pg_backend_pid()"), {}).scalar_one()
    with other.statements() as connection:
        assert connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": process}).scalar_one()
    with pytest.raises(StoreUnavailableError):
        run(database, asking)
    run(database, adding("afterwards"), asking)
    assert kinds(database) == ["afterwards"]
    for one in (database, other):
        one.close()


def test_errors_leave_no_prepared_statements_behind(database_url: str) -> None:
    database = Database(database_url, pool_size=1, max_overflow=0)
    for _ in range(3):
        with pytest.raises(DBAPIError):
            run(database, asking, adding("bad", "no JSON"))
    run(database, asking)
    with database.statements() as connection:
        names = connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
    database.close()
    assert names == 1


@pytest.mark.parametrize("many", [False, True])
def test_a_value_that_cannot_be_sent_harms_no_later_call_on_its_connection(database_url: str, many: bool) -> None:
    database = Database(database_url, pool_size=1, max_overflow=0)

    def sending_in_vain(connection: Connection) -> None:
        add(connection, "lost")
        cursor = connection.connection.cursor()
        if many:
            cursor.executemany("SELECT %s", [("a",), ("\0",)])
        else:
            cursor.execute("SELECT %s", ("\0",))

    with pytest.raises(ValueError, match="NUL"):
        run(database, sending_in_vain)
    for _ in range(2):
        run(database, adding("good"), asking)
    assert kinds(database) == ["good", "good"]
    database.close()
