"""The Optuna view over a real database."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
import pytest
from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection

from api.dashboard.source import DatabaseSource
from hpo.answer.evidence import evidence_of_winner
from hpo.optimizer import create_optimizer
from hpo.optuna_view.storage import StudyStorage
from hpo.optuna_view.trials import frozen_trial
from hpo.store import Database, answers, lifecycle, notes, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import FailureKind, StudyState, Suggestion, TrialRecord

from ..service.studies import claim, create, finish, records
from ..store.world import run


def _suggest(database: Database, study: StudyRow, count: int) -> None:
    suggestions = create_optimizer(study.spec).ask(count)
    _add(database, study, suggestions)


def _add(database: Database, study: StudyRow, suggestions: list[Suggestion]) -> None:
    with database.transaction() as connection:
        generation = studies.acquire_generator(connection, study.id, "test", 600)
        assert generation is not None
        lifecycle.suggest(connection, study.id, suggestions, owner="test", generation=generation)


@pytest.fixture
def study(database: Database) -> StudyRow:
    """A study with trials in several states: completed, failed, running, withdrawn, waiting."""
    study = create(database)
    _suggest(database, study, 4)
    for value in (0.3, 0.5):
        lease = claim(database)
        assert lease is not None
        finish(database, lease, value)
    lease = claim(database)
    assert lease is not None
    finish(database, lease, 0.1, outcome="failed", metrics={}, failure_kind=FailureKind.OOM, failure_message="too big")
    with database.transaction() as connection:
        lifecycle.withdraw(connection, study.id, actor="test")
    _add(database, study, create_optimizer(study.spec).ask(6)[4:])
    assert claim(database) is not None
    return study


def test_optuna_reads_the_database(database: Database, study: StudyRow) -> None:
    storage = StudyStorage(DatabaseSource(database))
    found = optuna.load_study(study_name="study", storage=storage)
    complete, fail = OptunaState.COMPLETE, OptunaState.FAIL
    states = [complete, complete, fail, OptunaState.RUNNING, OptunaState.WAITING]
    assert [trial.state for trial in found.trials] == states
    assert [trial.number for trial in found.trials] == [0, 1, 2, 4, 5]
    assert found.best_trial.number == 1
    assert found.trials[1].intermediate_values == {3: 0.5}
    assert found.trials[2].user_attrs["failure_kind"] == "oom"
    assert found.user_attrs["state"] == "active"
    by_id = {record.id: record.number for record in records(database, study)}
    assert {trial._trial_id: trial.number for trial in found.trials}.items() <= by_id.items()
    assert storage.get_trial(found.trials[3]._trial_id).number == 4


def test_the_first_attributes_say_what_is_known_of_the_best_configuration(database: Database, study: StudyRow) -> None:
    create(database, name="empty")
    attributes = {
        found.study_name: found.user_attrs for found in StudyStorage(DatabaseSource(database)).get_all_studies()
    }
    assert "best" not in attributes["empty"]
    assert list(attributes["study"])[:2] == ["state", "best"], "the page shows the first five"
    with database.transaction() as connection:
        best = answers.read(connection, study)
    assert best is not None
    shown = attributes["study"]["best"].split(". ")
    assert [line.lower() for line in shown] == [
        f"trial 1: {line}" if place == 0 else line for place, line in enumerate(evidence_of_winner(best).lines())
    ]
    assert shown[0].endswith("; the best of 2 configurations")
    assert shown[1].startswith("Expected on new data: 0.")


def test_how_far_a_running_trial_is_and_workers_in_quarantine_are_attributes(
    database: Database, study: StudyRow
) -> None:
    storage = StudyStorage(DatabaseSource(database))
    assert "workers" not in storage.get_study_user_attrs(study.id)
    run(
        database,
        "UPDATE attempt SET progress_at = clock_timestamp(), "
        """progress = '{"stage": "preparing", "step": "scan", "done": 1, "total": 4}' """
        "FROM trial WHERE trial.id = attempt.trial_id AND trial.attempt = attempt.attempt",
    )
    run(
        database,
        "UPDATE worker SET faults = 2, fault = 'device', fault_message = E'ECC\\x1b[2J error', faulty_since = now(), "
        "faulted_at = now(), quarantined_at = now(), quarantined_until = now()",
    )
    storage = StudyStorage(DatabaseSource(database))
    shown = {trial.number: trial.user_attrs.get("progress") for trial in storage.get_all_trials(study.id)}
    assert shown == {0: None, 1: None, 2: None, 4: "data set: reading the videos 1/4 videos", 5: None}
    workers = (
        "1 of 1 in quarantine: w0: 2 faults in a row, the last one of its GPU: ECC\\x1b[2J error. The page /workers "
        "says how to end it"
    )
    assert storage.get_study_user_attrs(study.id)["workers"] == workers
    with database.transaction() as connection:
        studies.set_state(connection, "study", StudyState.PAUSED, actor="test")
    assert "workers" not in StudyStorage(DatabaseSource(database)).get_study_user_attrs(study.id)


def test_finished_trials_are_translated_once_and_running_ones_each_time(
    database: Database, study: StudyRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = StudyStorage(DatabaseSource(database))
    first = storage.get_all_trials(study.id, deepcopy=False)
    translated: list[int] = []

    def spy(*args: object, **named: object) -> object:
        translated.append(args[1].number)  # type: ignore[attr-defined]  # a record
        return frozen_trial(*args, **named)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr("api.dashboard.source.frozen_trial", spy)
    with_curves: list[int] = []
    by_ids = trials.by_ids

    def read(connection: Connection, trial_ids: Sequence[int]) -> list[TrialRecord]:
        with_curves.extend(trial_ids)
        return by_ids(connection, trial_ids)

    monkeypatch.setattr(trials, "by_ids", read)
    again = storage.get_all_trials(study.id, deepcopy=False)
    numbers = {trial._trial_id: trial.number for trial in again}
    assert [numbers[trial_id] for trial_id in with_curves] == [4, 5], "of the others no curve is read again"
    assert translated == [4, 5]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, True, False, False]


def test_a_fresh_view_finds_a_trial_by_its_id(database: Database, study: StudyRow) -> None:
    (record, *_) = records(database, study)
    assert StudyStorage(DatabaseSource(database)).get_trial(record.id).number == 0
    with pytest.raises(KeyError):
        StudyStorage(DatabaseSource(database)).get_trial(10**6)


def test_deleted_studies_disappear(database: Database) -> None:
    create(database, name="gone")
    storage = StudyStorage(DatabaseSource(database))
    assert [study.study_name for study in storage.get_all_studies()] == ["gone"]
    with database.transaction() as connection:
        studies.delete(connection, "gone", actor="test")
    assert storage.get_all_studies() == []


def test_the_note_of_a_study_is_shown(database: Database, study: StudyRow) -> None:
    note = "abc" * 1_500
    with database.transaction() as connection:
        notes.set_note(connection, study.name, note, actor="ann")
    shown = StudyStorage(DatabaseSource(database)).get_study_system_attrs(study.id)
    assert shown["dashboard:note_ver"] == 1
    assert "".join(shown[f"dashboard:note_str:{place}"] for place in range(3)) == note


def test_notes_live_as_long_as_the_view(database: Database, study: StudyRow) -> None:
    storage = StudyStorage(DatabaseSource(database))
    storage.set_study_system_attr(study.id, "dashboard:note_str:0", "promising")
    assert storage.get_study_system_attrs(study.id)["dashboard:note_str:0"] == "promising"
