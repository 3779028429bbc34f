"""What is remembered of tokens: a short time, few of them, and for calls whose statements check them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from api.auth import known
from api.auth.known import KNOWN_SECONDS, KnownTokens, is_checked_later
from hpo.store.tokens import TokenRow

ROW = TokenRow(id=1, name="gpu", kind="api", scopes=frozenset({"worker"}), created_at=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_token_is_known_for_a_short_time() -> None:
    now = 0.0
    tokens = KnownTokens(clock=lambda: now)
    assert tokens.get("Bearer one") is None
    tokens.add("Bearer one", ROW)
    now = KNOWN_SECONDS - 1
    assert tokens.get("Bearer one") == ROW
    assert tokens.get("Bearer two") is None
    now = KNOWN_SECONDS
    assert tokens.get("Bearer one") is None


def test_of_too_many_tokens_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_TOKENS", 2)
    tokens = KnownTokens(clock=lambda: 0.0)
    for name in ("one", "two", "one", "three"):
        tokens.add(name, ROW)
    assert [tokens.get(name) is not None for name in ("one", "two", "three")] == [True, False, True]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/leases", True),
        ("POST", "/v1/trials/17/reports", True),
        ("POST", "/v1/trials/17/finish", True),
        ("POST", "/v1/trials/17/release", True),
        ("GET", "/v1/trials/17/reports", False),
        ("POST", "/v1/trials/17/log", False),
        ("POST", "/v1/trials/17/reports/x", False),
        ("POST", "/v1/trials/17/reports\n", False),
        ("POST", "/v1/leases/", False),
        ("POST", "/v1/studies", False),
        ("DELETE", "/v1/tokens/1", False),
    ],
)
def test_only_calls_about_trials_check_their_token_later(method: str, path: str, *, expected: bool) -> None:
    assert is_checked_later(method, path) is expected
