"""Waits between calls that fail."""

from __future__ import annotations

import random

import pytest

from workers.lease.backoff import Backoff, jittered


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, high: high)


@pytest.mark.usefixtures("no_jitter")
def test_waits_double_up_to_the_longest_and_a_success_resets_them() -> None:
    backoff = Backoff(first_seconds=0.5, most_seconds=3.0)
    assert [backoff.next_seconds() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.failures == 5
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next_seconds() == 0.5


@pytest.mark.usefixtures("no_jitter")
def test_a_day_of_failures_does_not_overflow() -> None:
    backoff = Backoff()
    backoff.failures = 100_000
    assert backoff.next_seconds() == 15.0


@pytest.mark.usefixtures("no_jitter")
@pytest.mark.parametrize(("asked", "seconds"), [(None, 0.5), (0.1, 0.5), (4.0, 4.0), (3600.0, 15.0)])
def test_a_wait_that_the_other_side_asks_for_is_kept_up_to_the_longest(asked: float | None, seconds: float) -> None:
    assert Backoff(first_seconds=0.5, most_seconds=15.0).next_seconds(asked) == seconds


def test_jitter_spreads_waits_over_the_upper_half() -> None:
    waits = [jittered(8.0) for _ in range(200)]
    assert min(waits) >= 4.0
    assert max(waits) <= 8.0
    assert max(waits) - min(waits) > 2.0
    backoffs = [Backoff(first_seconds=8.0).next_seconds() for _ in range(200)]
    assert max(backoffs) - min(backoffs) > 2.0
