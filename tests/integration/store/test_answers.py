"""The answer of a study is computed when a trial has ended, and kept until the next one does."""

from __future__ import annotations

import threading
from collections import OrderedDict

import pytest
from sqlalchemy.exc import OperationalError

from hpo.answer import Answer
from hpo.errors import StoreUnavailableError
from hpo.store import Database, answers, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import FailureKind

from .world import finish, make_study, must_claim, suggest


def _read(database: Database, name: str = "study") -> Answer | None:
    with database.transaction() as connection:
        return answers.read(connection, studies.get(connection, name))


def test_an_answer_is_kept_until_a_trial_ends(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 4)
    assert _read(database) is None
    seen = []
    for value in (0.5, 0.4, 0.8):
        finish(database, must_claim(database), metrics={"val_top1": value})
        first = _read(database)
        must_not_change = _read(database)
        assert first is not None
        assert must_not_change is first
        seen.append((first.winner.chosen, len(first.candidates), first.luckiest_value))
    assert seen == [(0, 1, 0.5), (0, 2, 0.5), (2, 3, 0.8)]
    finish(database, must_claim(database), "failed", failure_kind=FailureKind.ERROR)
    assert _read(database) is first


def test_so_many_configurations_are_kept_and_what_nobody_read_for_longest_goes_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_kept", OrderedDict())
    monkeypatch.setattr(answers, "_MOST", 3)
    for name, count in (("large", 2), ("small", 1), ("other", 1)):
        study = make_study(database, name)
        suggest(database, study, count)
        for _ in range(count):
            finish(database, must_claim(database, study), metrics={"val_top1": 0.5})
    large, small = _read(database, "large"), _read(database, "small")
    assert _read(database, "large") is large, "three configurations in all"
    other = _read(database, "other")
    assert _read(database, "large") is large
    assert _read(database, "other") is other
    assert _read(database, "small") is not small


def test_the_answers_of_studies_are_apart(database: Database) -> None:
    for name, value in (("study", 0.5), ("other", 0.7)):
        study = make_study(database, name)
        suggest(database, study, 1)
        finish(database, must_claim(database, study), metrics={"val_top1": value})
    with database.transaction() as connection:
        found = [answers.best(connection, studies.get(connection, name)) for name in ("study", "other")]
    assert [record.metrics for record in found if record] == [{"val_top1": 0.5}, {"val_top1": 0.7}]


@pytest.fixture
def large(database: Database, monkeypatch: pytest.MonkeyPatch) -> StudyRow:
    """A study with two suggestions that is large from its first result on."""
    monkeypatch.setattr(answers, "LARGE", 1)
    monkeypatch.setattr(answers, "_beside", {})
    monkeypatch.setattr(answers, "_failed", {})
    study = make_study(database)
    suggest(database, study, 2)
    return study


def _at_once(database: Database) -> answers.Shown:
    with database.transaction() as connection:
        study = studies.get(connection, "study")
        return answers.at_once(connection, [study], database)[study.id]


def _wait_for_threads() -> int:
    """Wait for the threads that compute answers, and return how many there were."""
    found = [one for one in threading.enumerate() if one.name.startswith("answer ")]
    for one in found:
        one.join(60)
    return len(found)


def test_a_page_of_a_large_study_does_not_wait_and_is_told_of_how_many_results_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "LARGE", 2)
    monkeypatch.setattr(answers, "_REST", 0.0)
    monkeypatch.setattr(answers, "_beside", {})
    study = make_study(database)
    suggest(database, study, 4)
    assert _at_once(database) == answers.Shown(answer=None, counted=0, results=0, is_current=True)
    finish(database, must_claim(database), metrics={"val_top1": 0.5})
    small = _at_once(database)
    assert small.answer is not None
    assert (small.counted, small.results, small.is_current) == (1, 1, True), "a small study is worth the wait"
    finish(database, must_claim(database), metrics={"val_top1": 0.7})
    assert _at_once(database) == answers.Shown(answer=small.answer, counted=1, results=2, is_current=False)
    _wait_for_threads()
    now = _at_once(database)
    assert now.answer is not None
    assert now.answer is _read(database)
    assert (now.answer.luckiest_value, now.counted, now.results, now.is_current) == (0.7, 2, 2, True)

    monkeypatch.setattr(answers, "_kept", OrderedDict())
    assert _at_once(database) == answers.Shown(answer=None, counted=0, results=2, is_current=False)
    _wait_for_threads()
    assert _at_once(database).is_current


def test_a_page_of_many_small_studies_waits_for_the_first_of_them_only(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the home page does after the start of a server."""
    monkeypatch.setattr(answers, "LARGE", 3)
    monkeypatch.setattr(answers, "_beside", {})
    found = []
    for number in range(4):
        found.append(make_study(database, f"study-{number}"))
        suggest(database, found[-1], 1)
        finish(database, must_claim(database, found[-1]), metrics={"val_top1": 0.1 * number})
    with database.transaction() as connection:
        first = answers.at_once(connection, found, database)
    assert sorted(one.is_current for one in first.values()) == [False, False, True, True]
    _wait_for_threads()
    with database.transaction() as connection:
        again = answers.at_once(connection, found, database)
    assert [again[study.id].is_current for study in found] == [True] * 4


@pytest.mark.usefixtures("large")
def test_what_ends_before_a_thread_has_its_turn_is_part_of_its_answer(database: Database) -> None:
    finish(database, must_claim(database), metrics={"val_top1": 0.5})
    with answers._turn:
        assert not _at_once(database).is_current
        finish(database, must_claim(database), metrics={"val_top1": 0.7})
    _wait_for_threads()
    now = _at_once(database)
    assert now.answer is not None
    assert (now.answer.luckiest_value, now.counted, now.is_current) == (0.7, 2, True)


@pytest.mark.usefixtures("large")
def test_answers_for_pages_leave_time_to_others(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_REST", 1e9)
    for value in (0.5, 0.7):
        finish(database, must_claim(database), metrics={"val_top1": value})
        _at_once(database)
        _wait_for_threads()
    shown = _at_once(database)
    assert _wait_for_threads() == 0
    assert (shown.counted, shown.results, shown.is_current) == (1, 2, False)
    assert _read(database) is not None
    assert _at_once(database).is_current, "a program that waits for it has computed it"


def test_an_answer_that_cannot_be_computed_beside_is_tried_again(
    large: StudyRow, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answers, "_REST", 0.0)
    finish(database, must_claim(database), metrics={"val_top1": 0.5})
    away = Database("postgresql://127.0.0.1:1/nothing")
    with database.transaction() as connection:
        answers.at_once(connection, [large], away)
    _wait_for_threads()
    assert "the answer of the study study was not computed" in caplog.text
    _at_once(database)
    _wait_for_threads()
    assert _at_once(database).is_current


@pytest.mark.usefixtures("large")
def test_an_answer_that_cannot_be_computed_says_why_until_a_further_trial_has_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answers, "_REST", 0.0)

    def fail(*_: object) -> None:
        raise FloatingPointError("no curve")

    with monkeypatch.context() as patched:
        patched.setattr(answers, "answer", fail)
        for results in (1, 2):
            finish(database, must_claim(database), metrics={"val_top1": 0.1 * results})
            assert _at_once(database).failure is None, "it is being computed"
            _wait_for_threads()
            failed = answers.Shown(
                answer=None, counted=0, results=results, is_current=False, failure="FloatingPointError: no curve"
            )
            assert [_at_once(database) for _ in range(2)] == [failed, failed]
            assert _wait_for_threads() == 0, "it would fail again"
    assert _at_once(database) == failed
    assert caplog.text.count("could not be computed") == 1, "said once"

    with database.transaction() as connection:
        suggest(database, studies.get(connection, "study"), 1)
    finish(database, must_claim(database), metrics={"val_top1": 0.9})
    _at_once(database)
    _wait_for_threads()
    now = _at_once(database)
    assert (now.is_current, now.failure, now.counted) == (True, None, 3)


def test_a_database_that_is_away_is_no_failure_of_an_answer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    suggest(database, make_study(database), 1)
    finish(database, must_claim(database), metrics={"val_top1": 0.5})

    def fail(*_: object) -> None:
        raise OperationalError("SELECT", {}, RuntimeError("the server closed the connection"))

    with monkeypatch.context() as patched:
        patched.setattr(trials, "records", fail)
        with pytest.raises(StoreUnavailableError):
            _at_once(database)
    assert _at_once(database).is_current


@pytest.mark.usefixtures("large")
def test_an_answer_for_which_there_was_no_thread_is_computed_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_REST", 0.0)
    finish(database, must_claim(database), metrics={"val_top1": 0.5})

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        assert not _at_once(database).is_current
    _at_once(database)
    _wait_for_threads()
    assert _at_once(database).is_current
