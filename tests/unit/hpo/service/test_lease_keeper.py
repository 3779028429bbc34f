"""The thread that renews generator leases: for as long as the loop shows signs of life, and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hpo.errors import StoreUnavailableError
from hpo.service import optimizer_process as process
from hpo.store import optimizers, studies


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Rounds:
    """Takes the place of the event that ends the thread: a number of waits, each as long as was asked for."""

    def __init__(self, clock: Clock, count: int) -> None:
        self._clock = clock
        self._left = count
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        if self._left == 0:
            return True
        self._left -= 1
        self._clock.now += seconds
        self.waited.append(seconds)
        return False


class NoDatabase:
    """Transactions in which nothing happens; while `is_down` there are none."""

    is_down = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.is_down:
            raise StoreUnavailableError
        yield None


class Keeper:
    """A lease keeper whose rounds the test runs itself, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.database = Clock(), NoDatabase()
        self.renewed: list[tuple[int, float]] = []
        """Study and time of every renewal."""
        monkeypatch.setattr(process, "time", self.clock)
        monkeypatch.setattr(studies, "acquire_generator", self._acquire)
        monkeypatch.setattr(optimizers, "renew", self._renew)
        self.signs: list[float] = []
        """When the optimizer was said to live."""
        database: Any = self.database
        self.keeper = process._LeaseKeeper(database, "owner")

    def _acquire(self, _connection: None, study_id: int, owner: str, seconds: float) -> int:
        assert (owner, seconds) == ("owner", process.LEASE_SECONDS)
        self.renewed.append((study_id, self.clock.now))
        return 1

    def _renew(self, _connection: None, owner: str, seconds: float) -> None:
        assert (owner, seconds) == ("owner", process.LEASE_SECONDS)
        self.signs.append(self.clock.now)

    def let_pass(self, rounds: int) -> Rounds:
        """Return the script of `rounds` rounds of the thread, which are run here."""
        ended: Any = self.keeper._ended
        script = Rounds(self.clock, rounds)
        in_place_of_event: Any = script
        self.keeper._ended = in_place_of_event
        self.keeper._renew_until_ended()
        self.keeper._ended = ended
        return script


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    """A keeper whose own thread waits until the end of the test."""
    wait: Callable[..., bool] = threading.Event.wait
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: wait(self))
    made = Keeper(monkeypatch)
    yield made
    made.keeper.end()


def test_leases_are_renewed_three_times_while_they_last(keeper: Keeper) -> None:
    keeper.keeper.serve([1, 2])
    script = keeper.let_pass(3)
    assert script.waited == [process.LEASE_SECONDS / 3] * 3
    assert sorted(study for study, _ in keeper.renewed) == [1, 1, 1, 2, 2, 2]
    assert len(keeper.signs) == 3, "others learn that the optimizer lives"


def test_a_stuck_loop_loses_its_leases(keeper: Keeper) -> None:
    """Nothing is renewed once a step has lasted too long, so that another process can take over."""
    started = keeper.clock.now
    keeper.keeper.serve([1])
    keeper.let_pass(1000)
    assert keeper.clock.now - started > 4 * process.STUCK_SECONDS
    last = max(time for _, time in keeper.renewed) - started
    assert process.STUCK_SECONDS - process.LEASE_SECONDS <= last < process.STUCK_SECONDS
    assert max(keeper.signs) == last + started, "it counts as dead for the others, too"


def test_leases_are_renewed_again_once_the_loop_returns(keeper: Keeper) -> None:
    keeper.keeper.serve([1])
    keeper.let_pass(1000)
    keeper.renewed.clear()
    keeper.keeper.serve([1])
    keeper.let_pass(1)
    assert [study for study, _ in keeper.renewed] == [1]


def test_a_study_that_was_left_is_not_renewed(keeper: Keeper) -> None:
    keeper.keeper.serve([1, 2])
    keeper.keeper.serve([2])
    keeper.let_pass(1)
    assert [study for study, _ in keeper.renewed] == [2]


def test_an_outage_does_not_end_the_renewing(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    keeper.keeper.serve([1])
    keeper.database.is_down = True
    keeper.let_pass(2)
    assert keeper.renewed == []
    assert "generator leases were not renewed" in caplog.text
    keeper.database.is_down = False
    keeper.let_pass(1)
    assert [study for study, _ in keeper.renewed] == [1]


def test_one_that_leaves_renews_the_lease_of_its_last_step_alone(keeper: Keeper) -> None:
    keeper.keeper.serve([1, 2, 3])
    keeper.keeper.leave(2)
    keeper.keeper.serve([1, 2, 3])
    keeper.let_pass(1)
    assert [study for study, _ in keeper.renewed] == [2]
    assert keeper.signs == [], "the others count it no more"
