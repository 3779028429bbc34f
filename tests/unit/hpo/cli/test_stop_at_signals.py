"""SIGTERM sets an event, also while the main thread is within that event."""

from __future__ import annotations

import signal

import pytest

from hpo.cli.ending import stop_at_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_within_the_event_blocks_nothing(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_at_signals() as stop:
        with stop._cond:  # type: ignore[attr-defined]  # where a wait has the lock for a moment
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert not stop._flag  # type: ignore[attr-defined]  # nobody can have set it yet
        assert stop.wait(60.0)
    assert signal.getsignal(number) is before


def test_without_a_signal_nothing_stops() -> None:
    with stop_at_signals() as stop:
        pass
    assert not stop.is_set()
