"""SIGTERM ends a service that is starting, also where Python drops the exception that says so."""

from __future__ import annotations

import signal
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from hpo.cli.ending import Ending


@pytest.fixture
def ending() -> Iterator[Ending]:
    before = signal.getsignal(signal.SIGTERM)
    found = Ending()
    found.listen()
    yield found
    signal.signal(signal.SIGTERM, before)


def test_the_signal_unwinds_what_runs(ending: Ending) -> None:
    ending.check()
    with pytest.raises(SystemExit, match="0"):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_comes_in_a_callback_of_a_weak_reference_is_remembered(
    ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: dropped.append(found.exc_type))
    module_lock = Ending()  # imports let go of such an object for each module
    reference = weakref.ref(module_lock, lambda _: signal.raise_signal(signal.SIGTERM))
    del module_lock
    assert (reference(), dropped) == (None, [SystemExit]), "Python has dropped it"
    with pytest.raises(SystemExit, match="0"):
        ending.check()
