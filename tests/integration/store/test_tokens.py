"""Tokens: their form, their life, and that the table alone gives no access."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import AuthenticationError, ConflictError, NotFoundError
from hpo.store import Database, tokens
from hpo.store.tables import SCOPES

from .world import run, scalar, until_somebody_waits

KEY = b"k" * 32


def make(database: Database, **options: object) -> str:
    with database.transaction() as connection:
        return tokens.create(connection, name="mine", key=KEY, **{"scopes": ["read"], **options})  # type: ignore[arg-type]  # options by name


def belonging(database: Database, kind: str, expires: timedelta, **options: object) -> str:
    parent = verify(database, make(database)).id
    return make(database, kind=kind, expires=expires, parent=parent, **options)


def verify(database: Database, token: str, **options: object) -> tokens.TokenRow:
    with database.transaction() as connection:
        return tokens.verify(connection, token, **{"key": KEY, **options})  # type: ignore[arg-type]  # options by name


def test_a_token_is_found_again_and_not_kept(database: Database) -> None:
    token = make(database, scopes=["worker"])
    assert len(token) == len("hpo_") + 43 + 6
    found = verify(database, token)
    assert (found.name, found.kind, found.scopes) == ("mine", "api", frozenset({"worker"}))
    with database.transaction() as connection:
        assert token.encode() not in bytes(scalar(connection, "SELECT hash FROM api_token"))
        assert tokens.list_all(connection) == [found]


@pytest.mark.parametrize(
    ("held", "granted"), [("admin", {"admin", "worker", "read"}), ("worker", {"worker", "read"}), ("read", {"read"})]
)
def test_scopes_imply_the_lesser_ones(database: Database, held: str, granted: set[str]) -> None:
    found = verify(database, make(database, scopes=[held]))
    assert {scope for scope in SCOPES if found.allows(scope)} == granted  # type: ignore[arg-type]  # literals


@given(st.integers(0, 52), st.sampled_from("abcXYZ019-_"))
def test_a_mistyped_token_is_not_wellformed(place: int, character: str) -> None:
    token = tokens.generate()
    assert tokens.is_wellformed(token)
    mistyped = token[:place] + character + token[place + 1 :]
    assert tokens.is_wellformed(mistyped) == (mistyped == token)


@pytest.mark.parametrize("token", ["", "hpo_", "Bearer x", "hpo_" + "é" * 49, "hpo_" + "a" * 49])
def test_a_text_that_is_not_a_token_is_refused(database: Database, token: str) -> None:
    with pytest.raises(AuthenticationError):
        verify(database, token)


def test_a_token_of_another_key_is_refused(database: Database) -> None:
    token = make(database)
    with pytest.raises(AuthenticationError):
        verify(database, token, key=b"x" * 32)
    with pytest.raises(AuthenticationError):
        verify(database, tokens.generate())


def test_a_revoked_token_is_refused(database: Database) -> None:
    token = make(database)
    with database.transaction() as connection:
        token_id = tokens.verify(connection, token, KEY).id
        first = tokens.revoke(connection, token_id)
        assert tokens.revoke(connection, token_id) == first
        with pytest.raises(NotFoundError):
            tokens.revoke(connection, token_id + 1)
    with pytest.raises(AuthenticationError):
        verify(database, token)


def test_an_expired_token_is_refused(database: Database) -> None:
    token = make(database, expires=timedelta(minutes=5))
    assert verify(database, token).expires_at is not None
    run(database, "UPDATE api_token SET expires_at = clock_timestamp()")
    with pytest.raises(AuthenticationError):
        verify(database, token)
    with pytest.raises(AuthenticationError):
        verify(database, make(database, expires=datetime(2020, 1, 1, tzinfo=UTC)))


def test_a_login_code_works_once_and_only_as_such(database: Database) -> None:
    code = belonging(database, "login", timedelta(minutes=5), scopes=["admin"])
    with pytest.raises(AuthenticationError):
        verify(database, code)
    with database.transaction() as connection:
        assert tokens.redeem(connection, code, KEY).scopes == {"admin"}
    with database.transaction() as connection, pytest.raises(AuthenticationError):
        tokens.redeem(connection, code, KEY)


def test_a_session_is_refused_as_an_api_token(database: Database) -> None:
    session = belonging(database, "session", timedelta(days=1))
    assert verify(database, session, kind="session").kind == "session"
    with pytest.raises(AuthenticationError):
        verify(database, session)
    with database.transaction() as connection, pytest.raises(AuthenticationError):
        tokens.redeem(connection, session, KEY)


def test_mistakes_in_making_one_are_refused(database: Database) -> None:
    mistakes: list[dict[str, Any]] = [
        {"scopes": ["root"]},
        {"scopes": []},
        {"key": b"short"},
        {"kind": "session", "expires": timedelta(days=1)},
        {"parent": 1},
    ]
    for wrong in mistakes:
        with database.transaction() as connection, pytest.raises(ValueError, match=r"scopes|16 bytes|belong to"):
            tokens.create(connection, **{"name": "n", "scopes": ["read"], "key": KEY, **wrong})


# ---------------------------------------------------------------- uses, ends, the last admin


def _last_used(database: Database) -> list[datetime | None]:
    with database.transaction() as connection:
        return [row.last_used_at for row in tokens.list_all(connection)]


def test_the_last_use_is_known_to_the_minute_and_most_uses_write_nothing(database: Database) -> None:
    token = make(database)
    assert _last_used(database) == [None]
    verify(database, token)
    (first,) = _last_used(database)
    assert first is not None
    verify(database, token)
    assert _last_used(database) == [first]
    run(database, "UPDATE api_token SET last_used_at = last_used_at - interval '61 s'")
    verify(database, token)
    (later,) = _last_used(database)
    assert later is not None
    assert later > first


def test_a_refused_token_was_not_used(database: Database) -> None:
    token = make(database, expires=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(AuthenticationError):
        verify(database, token)
    assert _last_used(database) == [None]


@pytest.mark.parametrize("end", ["revoked_at", "expires_at"])
def test_codes_and_sessions_end_with_their_token(database: Database, end: str) -> None:
    session = belonging(database, "session", timedelta(days=1))
    code = belonging(database, "login", timedelta(days=1))
    known = verify(database, session, kind="session")
    run(database, f"UPDATE api_token SET {end} = clock_timestamp() WHERE kind = 'api'")  # noqa: S608 - a column's name
    with pytest.raises(AuthenticationError):
        verify(database, session, kind="session")
    with database.transaction() as connection, pytest.raises(AuthenticationError):
        tokens.redeem(connection, code, KEY)
    with database.transaction() as connection, pytest.raises(AuthenticationError):
        tokens.check(connection, known.id)


def test_a_session_of_an_earlier_release_that_belongs_to_no_token_is_refused(database: Database) -> None:
    session = belonging(database, "session", timedelta(days=1))
    run(database, "UPDATE api_token SET parent_id = NULL")
    with pytest.raises(AuthenticationError):
        verify(database, session, kind="session")


def test_a_valid_token_is_checked_again_without_its_text(database: Database) -> None:
    with database.transaction() as connection:
        token_id = tokens.verify(connection, make(database), KEY).id
        tokens.check(connection, token_id)
        tokens.revoke(connection, token_id)
        with pytest.raises(AuthenticationError):
            tokens.check(connection, token_id)


def test_the_last_admin_token_cannot_be_revoked(database: Database) -> None:
    for scopes in (["admin"], ["worker", "admin"], ["worker"], ["read"]):
        make(database, scopes=scopes)
    make(database, scopes=["admin"])
    run(database, "UPDATE api_token SET expires_at = clock_timestamp() WHERE id = (SELECT max(id) FROM api_token)")
    with database.transaction() as connection:
        first, second, *others, expired = (row.id for row in tokens.list_all(connection))
        tokens.revoke(connection, first)
        with pytest.raises(ConflictError, match=r"the last one with the scope 'admin'; make another first"):
            tokens.revoke(connection, second)
        for other in (*others, expired, first):
            tokens.revoke(connection, other)


def test_of_two_admins_who_revoke_each_other_one_stays(database: Database) -> None:
    for _ in range(2):
        make(database, scopes=["admin"])
    with database.transaction() as connection:
        first, second = (row.id for row in tokens.list_all(connection))
    refused: list[ConflictError] = []

    def revoke_the_other() -> None:
        try:
            with database.transaction() as connection:
                tokens.revoke(connection, first)
        except ConflictError as error:
            refused.append(error)

    thread = threading.Thread(target=revoke_the_other)
    with database.transaction() as connection:
        tokens.revoke(connection, second)
        thread.start()
        until_somebody_waits(connection)
    thread.join()
    assert len(refused) == 1
