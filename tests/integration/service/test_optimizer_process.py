"""The optimizer's loop, running: over several studies, beside others, through failures of the database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, text

from hpo.errors import StoreUnavailableError
from hpo.service import optimizer_process as process
from hpo.service import suggestion_queue as server
from hpo.store import Database, studies
from hpo.trial import StudyState, TrialState

from ..store.world import generator_is_alive
from .studies import claim, create, finish, optimizing, records, waiting

SECONDS = 60.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true answer of `condition`, which another thread changes."""
    pause = threading.Event()
    for _ in range(int(SECONDS / 0.01)):
        found = condition()
        if found:
            return found
        pause.wait(0.01)
    raise AssertionError(f"{what} did not happen within {SECONDS:g} s")


def test_a_worker_that_finds_no_trial_wakes_the_optimizer(database: Database) -> None:
    create(database)
    with optimizing(database, poll_seconds=3600):
        assert until(lambda: _hears(database) and claim(database), "a suggestion before anybody has asked")
        assert until(lambda: claim(database), "one for a worker that found none")


def _hears(database: Database) -> bool:
    with database.transaction() as connection:
        query = text("SELECT FROM pg_stat_activity WHERE query = 'LISTEN hpo_wanted' AND datname = current_database()")
        return connection.execute(query).first() is not None


def _run_trials(database: Database, count: int) -> None:
    for number in range(count):
        lease = until(lambda: claim(database), "a suggestion")
        finish(database, lease, 0.05 * number)


def test_a_whole_study_with_ax(database: Database) -> None:
    study = create(database, optimizer={"name": "ax", "startup_trials": 3}, budget={"trials": 6})
    with optimizing(database):
        _run_trials(database, 6)
    found = records(database, study)
    assert [record.state for record in found] == [TrialState.COMPLETED] * 6
    assert [record.generator for record in found[:3]] == ["sobol"] * 3
    assert "ax" in {record.generator for record in found[3:]}
    assert len({tuple(sorted(record.params.items())) for record in found}) == 6
    assert [record.number for record in found] == list(range(6))


def test_leases_are_given_back_at_the_end(database: Database) -> None:
    study = create(database)
    with optimizing(database):
        until(lambda: waiting(database, study), "a suggestion")
        with database.transaction() as connection:
            assert generator_is_alive(connection, study.id)
    with database.transaction() as connection:
        assert not generator_is_alive(connection, study.id)


def test_several_studies_and_new_ones_are_served(database: Database) -> None:
    first = create(database)
    with optimizing(database):
        until(lambda: waiting(database, first), "a suggestion for the first")
        second = create(database, name="second")
        until(lambda: waiting(database, second), "a suggestion for the second")


def test_a_study_in_which_nothing_has_changed_costs_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, other = create(database), create(database, name="other")
    # However slow the machine: no lease is renewed meanwhile, and no study gets a turn because of the time.
    monkeypatch.setattr(process, "LEASE_SECONDS", 3600.0)
    monkeypatch.setattr(process, "QUIET_SECONDS", 3600.0)
    loop = process._Loop(database, "one")
    try:
        rounds = iter(range(20))
        while loop.round() or next(rounds) < 3:
            pass
        asked: list[int] = []
        acquire = studies.acquire_generator

        def noted(connection: Connection, study_id: int, owner: str, seconds: float) -> int | None:
            asked.append(study_id)
            return acquire(connection, study_id, owner, seconds)

        monkeypatch.setattr(studies, "acquire_generator", noted)
        loop.round()
        assert not asked
        lease = claim(database)
        assert lease is not None
        loop.round()
        assert {study.id, other.id} == set(asked), "there is one worker more"
        while loop.round():
            pass
        loop.round()
        asked.clear()
        finish(database, lease, 0.5)
        loop.round()
        assert asked == [lease.study_id]
        monkeypatch.setattr(process, "QUIET_SECONDS", 0.0)
        lease = claim(database)
        assert lease is not None
        while loop.round():
            pass
        asked.clear()
        loop.round()
        assert lease.study_id in asked, "nothing has changed, but the time has run out"
    finally:
        loop.end()


def test_a_paused_study_is_left_and_a_resumed_one_is_served(database: Database) -> None:
    study = create(database)

    def set_state(state: StudyState) -> None:
        with database.transaction() as connection:
            studies.set_state(connection, study.name, state, actor="test")

    def is_served() -> bool:
        with database.transaction() as connection:
            return generator_is_alive(connection, study.id)

    with optimizing(database):
        until(is_served, "service")
        set_state(StudyState.PAUSED)
        until(lambda: not is_served(), "leaving")
        set_state(StudyState.ACTIVE)
        until(is_served, "service after resuming")


def test_another_process_takes_over_when_the_lease_expires(database: Database) -> None:
    """The first owner died: its lease is there, its suggestions are there, nobody renews."""
    study = create(database)
    with database.transaction() as connection:
        assert studies.acquire_generator(connection, study.id, "dead", 3600) == 1
    with optimizing(database, "alive"):
        other = create(database, name="other")
        until(lambda: waiting(database, other), "service of the other study")
        assert waiting(database, study) == []
        with database.transaction() as connection:
            connection.execute(
                text("UPDATE study SET generator_expires_at = clock_timestamp() WHERE id = :id"), {"id": study.id}
            )
        until(lambda: waiting(database, study), "the take-over")
    _assert_clean(database, study)


def test_the_leases_of_one_owner_are_given_back_and_no_others(database: Database) -> None:
    mine, other = create(database), create(database, name="other")
    with database.transaction() as connection:
        studies.acquire_generator(connection, mine.id, "dead", 3600)
        studies.acquire_generator(connection, other.id, "alive", 3600)
        studies.release_generators(connection, "dead")
        assert studies.acquire_generator(connection, mine.id, "next", 3600) == 2, "an older generation is refused"
        assert studies.acquire_generator(connection, other.id, "next", 3600) is None


def test_two_processes_make_no_duplicates(database: Database) -> None:
    study = create(database, budget={"trials": 8})
    with optimizing(database, "a"), optimizing(database, "b"):
        _run_trials(database, 8)
    assert claim(database) is None
    _assert_clean(database, study)
    assert len(records(database, study)) == 8


def test_an_unreachable_database_is_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    study = create(database)
    asked, is_down = threading.Event(), threading.Event()
    transaction = Database.transaction

    @contextmanager
    def cut(self: Database) -> Any:
        if threading.current_thread() is not threading.main_thread() and is_down.is_set():
            asked.set()
            raise StoreUnavailableError
        with transaction(self) as connection:
            yield connection

    is_down.set()
    monkeypatch.setattr(Database, "transaction", cut)
    with optimizing(database):
        assert asked.wait(SECONDS)
        assert waiting(database, study) == []
        is_down.clear()
        until(lambda: waiting(database, study), "service after the outage")


def test_a_defect_in_one_study_leaves_the_others_served(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = create(database, name="broken"), create(database, name="sound")
    step = server.SuggestionQueue.step

    def fail(self: server.SuggestionQueue, study: Any, **arguments: Any) -> bool:
        if study.id == broken.id:
            raise RuntimeError("a defect")
        return step(self, study, **arguments)

    monkeypatch.setattr(server.SuggestionQueue, "step", fail)
    with optimizing(database):
        until(lambda: waiting(database, sound), "service of the sound study")
        with database.transaction() as connection:
            # So that the API's fallback serves it meanwhile.
            assert not generator_is_alive(connection, broken.id)
    assert "a defect" in caplog.text


def _assert_clean(database: Database, study: Any) -> None:
    found = records(database, study)
    assert [record.number for record in found] == list(range(len(found)))
    keys = [tuple(sorted(record.params.items())) for record in found]
    assert len(set(keys)) == len(keys)
