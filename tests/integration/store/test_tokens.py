"""Tokens: their form, their life, and that the table alone gives no access."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import AuthenticationError, NotFoundError
from hpo.store import Database, tokens
from hpo.store.tables import SCOPES

from .world import run, scalar

KEY = b"k" * 32


def make(database: Database, **options: object) -> str:
    with database.transaction() as connection:
        return tokens.create(connection, name="mine", key=KEY, **{"scopes": ["read"], **options})  # type: ignore[arg-type]  # options by name


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
    code = make(database, kind="login", expires=timedelta(minutes=5), scopes=["admin"])
    with pytest.raises(AuthenticationError):
        verify(database, code)
    with database.transaction() as connection:
        assert tokens.redeem(connection, code, KEY).scopes == {"admin"}
    with database.transaction() as connection, pytest.raises(AuthenticationError):
        tokens.redeem(connection, code, KEY)


def test_a_session_is_refused_as_an_api_token(database: Database) -> None:
    session = make(database, kind="session", expires=timedelta(days=1))
    assert verify(database, session, kind="session").kind == "session"
    with pytest.raises(AuthenticationError):
        verify(database, session)
    with database.transaction() as connection, pytest.raises(AuthenticationError):
        tokens.redeem(connection, session, KEY)


def test_mistakes_in_making_one_are_refused(database: Database) -> None:
    mistakes: list[dict[str, Any]] = [{"scopes": ["root"]}, {"scopes": []}, {"key": b"short"}]
    for wrong in mistakes:
        with database.transaction() as connection, pytest.raises(ValueError, match=r"scopes|16 bytes"):
            tokens.create(connection, **{"name": "n", "scopes": ["read"], "key": KEY, **wrong})
