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
from hpo.service import sharing
from hpo.service import suggestion_queue as server
from hpo.service.setbacks import SETBACK_SECONDS, Setbacks
from hpo.store import Database, generators, optimizers, studies, study_fault
from hpo.store.studies import StudyRow
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


def test_a_new_optimizer_gets_its_share_and_one_that_ends_hands_over_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_nobody_count_as_dead_or_busy(monkeypatch)
    made = [create(database, name=name, optimizer={"name": "sobol"}).id for name in "abcd"]
    first, second = process._Loop(database, "first"), process._Loop(database, "second")

    def held() -> list[str | None]:
        with database.transaction() as connection:
            owners = generators.owners(connection, made)
        return [owners[study_id] for study_id in made]

    try:
        first.round()
        assert held() == ["first"] * 4
        second.round()
        assert held() == ["first"] * 4, "nobody takes what is served"
        first.round()
        assert held() == ["first", "first", None, None], "the newest are given back"
        first.round()
        assert held() == ["first", "first", None, None], "and are left to the other"
        second.round()
        shared = ["first", "first", "second", "second"]
        assert held() == shared
        first.round()
        assert held() == shared
        with database.transaction() as connection:
            assert [(row.owner, row.studies) for row in optimizers.list_alive(connection)] == [
                ("first", 2), ("second", 2),
            ]  # fmt: skip
        # As another thread does it while a step for the second study is taken.
        first._stepping = made[1]
        first.leave()
        assert held() == [None, "first", "second", "second"]
        first.end()
        second.round()
        assert held() == ["second"] * 4
    finally:
        first.end()
        second.end()
    assert held() == [None] * 4


def test_one_that_should_end_begins_nothing_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        create(database, name=name, optimizer={"name": "sobol"})
    stop, begun = threading.Event(), []
    loop = process._Loop(database, "first", stop=stop)

    def step(study: StudyRow, *_: object) -> bool:
        begun.append(study.name)
        stop.set()  # a signal arrives within the first step
        return False

    monkeypatch.setattr(loop, "_step", step)
    monkeypatch.setattr(loop, "_keep_importance", lambda _: begun.append("importance"))
    try:
        loop.round()
    finally:
        loop.end()
    assert begun == ["a"]


def test_a_study_that_its_optimizer_does_not_take_is_taken_by_another(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optimizer that was killed a moment ago counts for a while, and so does one that begins a long fit now."""
    monkeypatch.setattr(sharing, "READY_SECONDS", 3600.0)
    monkeypatch.setattr(sharing, "FREE_SECONDS", 3600.0)
    study = create(database, optimizer={"name": "sobol"})
    with database.transaction() as connection:
        optimizers.look(connection, "a-dead-one", 3600)
    loop = process._Loop(database, "later-in-the-alphabet")
    try:
        loop.round()
        assert waiting(database, study) == []
        monkeypatch.setattr(sharing, "FREE_SECONDS", 0.0)
        loop.round()
        assert waiting(database, study)
    finally:
        loop.end()


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
        second = process._Loop(database, "two")
        second.round()
        second.end()
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


class _Waits(threading.Event):
    """A signal to stop that notes how long it was waited for, and comes with the second wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None:
            return super().wait()  # what gives the studies back
        self.seconds.append(timeout)
        if len(self.seconds) == 2:
            self.set()
        return True


@pytest.mark.parametrize(("read_seconds", "rest"), [(0.0, process.LEAST_SECONDS), (0.3, 1.2), (60.0, 2.0)])
def test_reading_the_studies_of_a_large_service_is_not_all_that_it_does(
    database: Database, monkeypatch: pytest.MonkeyPatch, read_seconds: float, rest: float
) -> None:
    """The first worker that finds no trial is heard at once; where it asked in vain, reading rests for the others."""
    monkeypatch.setattr(process._Loop, "round", lambda self: setattr(self, "read_seconds", read_seconds))
    monkeypatch.setattr(process, "_is_wanted", lambda *_: True)
    stop = _Waits()
    process.run(database, owner="one", stop=stop)
    first, second = stop.seconds
    assert first <= process.LEAST_SECONDS
    assert rest - 0.5 < second <= rest, "what has passed since it began to read counts"


def test_workers_that_were_helped_are_heard_at_once_however_long_reading_takes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter([False, True, False, True, False])

    def act(loop: Any) -> bool:
        loop.read_seconds = 60.0
        return next(rounds)

    monkeypatch.setattr(process._Loop, "round", act)
    monkeypatch.setattr(process, "_is_wanted", lambda *_: True)
    stop = _Waits()
    process.run(database, owner="one", stop=stop)
    assert max(stop.seconds) <= process.LEAST_SECONDS


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


def test_a_study_that_fails_in_one_optimizer_is_left_to_another_for_a_growing_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as on a machine that lacks a package. All that moves is the clock of the one that fails."""
    _let_nobody_count_as_dead_or_busy(monkeypatch)
    study = create(database, optimizer={"name": "sobol"})
    poor, able = process._Loop(database, "a-poor-one"), process._Loop(database, "b-able-one")
    step, tried, now = process._Loop._step, [], 0.0
    poor._setbacks = Setbacks(lambda: now)

    def fail_in_one(self: process._Loop, served: StudyRow, *rest: int) -> bool:
        tried.append(self)
        if self is poor:
            raise ModuleNotFoundError("No module named 'models'")
        return step(self, served, *rest)

    monkeypatch.setattr(process._Loop, "_step", fail_in_one)

    def look() -> tuple[str | None, str | None]:
        with database.transaction() as connection:
            found = studies.get_by_id(connection, study.id)
        return found.generator_owner if found.is_served else None, found.degraded

    with database.transaction() as connection:
        optimizers.look(connection, "b-able-one", 3600)
    said = "the optimizer cannot propose configurations (a-poor-one): ModuleNotFoundError: No module named 'models'"
    try:
        poor.round()
        assert look() == (None, said)
        able.round()
        assert look() == ("b-able-one", f"{said}, but another one serves it")
        assert waiting(database, study)
        for _ in range(3):
            poor.round()
            able.round()
        assert tried.count(poor) == 1
        assert tried.count(able) < 4, "what another one lacks costs nothing where nothing has changed"

        now += SETBACK_SECONDS
        poor.round()
        assert look() == ("b-able-one", None), "it may be given the study again"
        with database.transaction() as connection:
            studies.release_generator(connection, study.id, "b-able-one")
        poor.round()
        assert look() == (None, said)
        able.round()
        now += SETBACK_SECONDS
        poor.round()
        assert look() == ("b-able-one", f"{said}, but another one serves it"), "it leaves it alone for longer"

        able.end()
        poor.round()
        assert tried.count(poor) == 3, "nobody else is left"
        monkeypatch.setattr(process._Loop, "_step", step)
        now += SETBACK_SECONDS
        poor.round()
        assert look() == ("a-poor-one", None)
    finally:
        poor.end()
        able.end()


def test_what_an_optimizer_that_is_gone_could_not_do_is_forgotten(database: Database) -> None:
    study = create(database, optimizer={"name": "sobol"})
    for by in ("gone", None):  # one of a release before this one had no name there
        study_fault.note_apart(database, study.id, study_fault.Part.OPTIMIZER, RuntimeError("a defect"), by=by)
    loop = process._Loop(database, "one")
    try:
        loop.round()
        with database.transaction() as connection:
            assert studies.get_by_id(connection, study.id).degraded is None
    finally:
        loop.end()


def _let_nobody_count_as_dead_or_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(process, "LEASE_SECONDS", 3600.0)
    monkeypatch.setattr(sharing, "READY_SECONDS", 3600.0)
    monkeypatch.setattr(sharing, "FREE_SECONDS", 3600.0)


def _assert_clean(database: Database, study: Any) -> None:
    found = records(database, study)
    assert [record.number for record in found] == list(range(len(found)))
    keys = [tuple(sorted(record.params.items())) for record in found]
    assert len(set(keys)) == len(keys)
