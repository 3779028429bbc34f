"""Studies: names, states, budgets, the guard against a typo."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection

from hpo.errors import ConflictError, NotFoundError, StaleLeaseError, StudyExistsError
from hpo.service import finishing
from hpo.store import Database, events, lifecycle, studies
from hpo.trial import StudyState, TrialState

from .world import (
    end_finished_studies,
    finish,
    make_spec,
    make_study,
    measurement,
    must_claim,
    record,
    release,
    report,
    run,
    scalar,
    study_row,
    suggest,
)


def move(database: Database, target: StudyState) -> studies.StudyRow:
    with database.transaction() as connection:
        return studies.set_state(connection, "study", target, actor="test")


def test_a_study_comes_back_as_it_went(database: Database) -> None:
    made = make_study(database)
    assert made.spec == make_spec()
    assert (made.state, made.counts, made.gpu_seconds_spent) == (StudyState.ACTIVE, {}, 0.0)
    with database.transaction() as connection:
        assert studies.get_by_id(connection, made.id) == studies.get(connection, "study")
        assert [row.name for row in studies.list_all(connection)] == ["study"]


def test_a_name_is_taken_once_and_nothing_of_the_second_is_stored(database: Database) -> None:
    make_study(database)
    with database.transaction() as connection:
        with pytest.raises(StudyExistsError, match="'study' exists already"):
            studies.create(connection, make_spec(), actor="test")
        assert scalar(connection, "SELECT count(*) FROM event") == 1


def test_a_name_that_is_not_there_suggests_what_is_near(database: Database) -> None:
    make_study(database, "slowfast-ucf101")
    with database.transaction() as connection:
        with pytest.raises(NotFoundError, match="did you mean 'slowfast-ucf101'"):
            studies.get(connection, "slowfast-ucf11")
        with pytest.raises(NotFoundError, match="hpo study list"):
            studies.get(connection, "zzz")


def test_pause_resume_and_stop(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 2)
    must_claim(database)
    assert move(database, StudyState.PAUSED).state is StudyState.PAUSED
    assert move(database, StudyState.PAUSED).state is StudyState.PAUSED
    assert move(database, StudyState.ACTIVE).state is StudyState.ACTIVE
    stopped = move(database, StudyState.STOPPED)
    assert stopped.counts == {TrialState.RUNNING: 1, TrialState.WITHDRAWN: 1}
    assert stopped.live_trials == 1
    for target in (StudyState.ACTIVE, StudyState.PAUSED):
        with pytest.raises(ConflictError, match="stopped"):
            move(database, target)
    with database.transaction() as connection:
        kinds = [event.kind for event in events.list_since(connection, study.id)]
    assert [kind for kind in kinds if kind.startswith("study.")] == [
        "study.created",
        "study.paused",
        "study.resumed",
        "study.stopped",
    ]


def test_a_stopped_study_ends_when_its_last_worker_has_finished(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    move(database, StudyState.STOPPED)
    assert end_finished_studies(database) == []
    finish(database, lease, "stopped", metrics={"val_top1": 0.4})
    assert end_finished_studies(database) == ["study"]
    assert end_finished_studies(database) == []
    ended = study_row(database)
    assert ended.finished_at is not None
    assert ended.state is StudyState.STOPPED


def test_stopping_keeps_what_waiting_trials_have_measured(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    report(database, lease, measurement(1, 0.3), measurement(2, 0.4))
    release(database, lease, "drained")
    move(database, StudyState.STOPPED)
    kept = record(database, lease.trial_id)
    assert (kept.state, kept.metrics) == (TrialState.STOPPED, {"val_top1": 0.4})


def test_a_study_with_running_trials_is_not_deleted(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    with database.transaction() as connection, pytest.raises(ConflictError, match="1 trials of 'study' are running"):
        studies.delete(connection, "study", actor="test")
    report(database, lease, measurement(1))
    finish(database, lease)
    with database.transaction() as connection:
        studies.delete(connection, "study", actor="test")
        for table in ("study", "trial", "measurement"):
            assert scalar(connection, f"SELECT count(*) FROM {table}") == 0  # noqa: S608 - our own names
        assert scalar(connection, "SELECT kind FROM event") == "study.deleted"


def test_the_study_is_completed_when_all_its_trials_are_over(database: Database) -> None:
    study = make_study(database, budget={"trials": 2})
    suggest(database, study, 5)
    finish(database, must_claim(database))
    assert end_finished_studies(database) == []
    finish(database, must_claim(database), "failed", failure_kind="oom")
    assert end_finished_studies(database) == ["study"]
    assert end_finished_studies(database) == []
    ended = study_row(database)
    assert (ended.state, ended.state_reason) == (StudyState.COMPLETED, "all 2 trials are done")
    with pytest.raises(ConflictError, match="completed"):
        move(database, StudyState.ACTIVE)


def test_a_study_that_gets_its_last_trials_meanwhile_is_not_completed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(database, budget={"trials": 2})
    has_open_trials = finishing._has_open_trials

    def suggest_after(connection: Connection, study_id: int) -> bool:
        found = has_open_trials(connection, study_id)
        if study_row(database).live_trials == 0:
            suggest(database, study, 2)
        return found

    monkeypatch.setattr(finishing, "_has_open_trials", suggest_after)
    assert end_finished_studies(database) == []
    assert study_row(database).live_trials == 2
    must_claim(database)


def test_a_study_whose_trials_all_failed_has_failed(database: Database) -> None:
    study = make_study(database, budget={"trials": 2})
    suggest(database, study, 2)
    finish(database, must_claim(database), "failed", failure_kind="oom")
    finish(database, must_claim(database), "failed", failure_kind="error", failure_message="no such file\ntraceback")
    assert end_finished_studies(database) == ["study"]
    ended = study_row(database)
    assert ended.state is StudyState.FAILED
    assert ended.state_reason == (
        "2 of 2 trials failed and none has a result; the last one, trial 1: error, no such file"
    )
    with database.transaction() as connection:
        assert [event.kind for event in events.list_since(connection, study.id)][-1] == "study.failed"
    with pytest.raises(ConflictError, match="failed"):
        move(database, StudyState.ACTIVE)
    with database.transaction() as connection, pytest.raises(ConflictError, match="has ended"):
        studies.enqueue(connection, "study", [{"lr": 0.01}], actor="test")


@pytest.mark.parametrize(
    ("budget", "failures", "others", "state"),
    [
        ({"gpu_hours": 9.0}, 19, 0, StudyState.ACTIVE),
        ({"gpu_hours": 9.0}, 20, 0, StudyState.FAILED),
        ({"trials": 150}, 29, 0, StudyState.ACTIVE),
        ({"trials": 150}, 30, 0, StudyState.FAILED),
        ({"gpu_hours": 9.0}, 25, 1, StudyState.ACTIVE),
        ({"gpu_hours": 9.0, "max_failed": 3}, 2, 1, StudyState.ACTIVE),
        ({"gpu_hours": 9.0, "max_failed": 3}, 3, 1, StudyState.FAILED),
    ],
)
def test_a_study_is_given_up_after_too_many_failures(
    database: Database, budget: dict[str, Any], failures: int, others: int, state: StudyState
) -> None:
    study = make_study(database, budget=budget)
    suggest(database, study, failures + others)
    for _ in range(others):
        lease = must_claim(database)
        report(database, lease, measurement(1))
        finish(database, lease, "stopped")
    for _ in range(failures):
        finish(database, must_claim(database), "failed", failure_kind="diverged")
    assert end_finished_studies(database) == (["study"] if state is StudyState.FAILED else [])
    ended = study_row(database)
    assert ended.state is state
    if state is StudyState.FAILED:
        assert (ended.state_reason or "").startswith(f"{failures} trials have failed")


def test_what_runs_when_too_many_have_failed_ends_with_its_result(database: Database) -> None:
    study = make_study(database, budget={"gpu_hours": 1.0, "max_failed": 1})
    suggest(database, study, 3)
    running, failing = must_claim(database), must_claim(database)
    report(database, running, measurement(1, 0.4))
    finish(database, failing, "failed", failure_kind="oom")
    assert end_finished_studies(database) == []
    assert report(database, running).study_state is StudyState.STOPPED
    finish(database, running, "stopped", metrics={"val_top1": 0.4})
    assert end_finished_studies(database) == ["study"]
    assert study_row(database).state is StudyState.FAILED
    assert record(database, running.trial_id).metrics == {"val_top1": 0.4}


def test_three_invalid_trials_pause_a_study_and_the_limit_of_failures_ends_it(database: Database) -> None:
    study = make_study(database, budget={"trials": 50, "max_failed": 4})
    suggest(database, study, 5)
    for _ in range(3):
        fail_invalid(database)
    assert end_finished_studies(database) == []
    assert study_row(database).state is StudyState.PAUSED
    move(database, StudyState.ACTIVE)
    fail_invalid(database)
    assert end_finished_studies(database) == ["study"]
    ended = study_row(database)
    assert (ended.state, ended.counts[TrialState.WITHDRAWN]) == (StudyState.FAILED, 1)


GRID = {"lr": {"type": "float", "low": 0.001, "high": 0.003, "step": 0.001}}
"""The three learning rates that `suggest` proposes first."""


def test_a_used_up_space_ends_the_study(database: Database) -> None:
    study = make_study(database, space=GRID, budget={"trials": 12})
    suggest(database, study, 3)
    finish(database, must_claim(database))
    finish(database, must_claim(database), "failed", failure_kind="oom")
    assert end_finished_studies(database) == []
    finish(database, must_claim(database), "stopped")
    assert end_finished_studies(database) == ["study"]
    ended = study_row(database)
    assert ended.state is StudyState.COMPLETED
    assert ended.state_reason == "the space is used up: each of its 3 configurations has been tried"


def test_a_used_up_space_leaves_the_rest_of_its_trials_to_the_finalists(database: Database) -> None:
    study = make_study(database, space=GRID, budget={"trials": 9}, finalists={"top": 2, "seeds": 2, "share": 0.2})
    suggest(database, study, 3)
    for value in (0.2, 0.4):
        finish(database, must_claim(database), metrics={"val_top1": value})
    assert study_row(database).race is None
    finish(database, must_claim(database), metrics={"val_top1": 0.6})
    assert end_finished_studies(database) == []
    again = study_row(database)
    assert again.race is not None
    assert again.race.trials == 4, "of one for the share and six that the search has left, two for each of two"
    assert again.race.reason == "the space is used up: each of its 3 configurations has been tried"
    assert must_claim(database).number == 3


def test_a_withdrawn_configuration_and_a_waiting_guess_keep_a_study_open(database: Database) -> None:
    study = make_study(database, space=GRID, budget={"gpu_hours": 1.0})
    suggest(database, study, 3)
    finish(database, must_claim(database))
    finish(database, must_claim(database))
    with database.transaction() as connection:
        assert lifecycle.withdraw(connection, study.id, actor="test") == 1
    suggest(database, study, 1)
    finish(database, must_claim(database))
    assert end_finished_studies(database) == [], "0.001 was tried twice, and 0.003 was not"
    with database.transaction() as connection:
        studies.enqueue(connection, "study", [{"lr": 0.002}], actor="test")
    suggest(database, study, 3)
    for _ in range(3):
        finish(database, must_claim(database))
    assert end_finished_studies(database) == [], "a person has asked for another trial"


def test_held_trials_of_a_used_up_space_end(database: Database) -> None:
    pausing = {"name": "asha", "min_epochs": 1, "reduction": 2, "pause": True, "startup_trials": 0}
    study = make_study(database, space=GRID, budget={"trials": 12}, early_stopping=pausing)
    suggest(database, study, 3)
    for value in (0.9, 0.2, 0.1):
        lease = must_claim(database)
        report(database, lease, measurement(1, value))
        release(database, lease, "paused") if value < 0.5 else finish(database, lease)
    assert end_finished_studies(database) == ["study"]
    assert study_row(database).counts == {TrialState.COMPLETED: 1, TrialState.STOPPED: 2}


def test_a_study_without_trials_is_not_finished(database: Database) -> None:
    make_study(database, budget={"trials": 1})
    assert end_finished_studies(database) == []


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"gpu_hours": 0.001}, "the budget of 0.001 GPU hours is used up"),
        ({"wall_hours": 1.0}, "the budget of 1 hours is used up"),
        ({"trials": 9, "target": {"val_top1": 0.5}}, "trial 0 reached the target (val_top1 0.5)"),
    ],
)
def test_once_a_budget_is_reached_nothing_begins_and_what_runs_ends(
    database: Database, budget: dict[str, Any], reason: str
) -> None:
    study = make_study(database, budget=budget)
    suggest(database, study, 3)
    first, running = must_claim(database), must_claim(database)
    assert end_finished_studies(database) == []
    report(database, first, measurement(1, 0.5, gpu_seconds=4.0))
    finish(database, first, metrics={"val_top1": 0.5})
    run(database, "UPDATE trial SET started_at = started_at - interval '1 hour' WHERE started_at IS NOT NULL")
    assert end_finished_studies(database) == []
    assert study_row(database).counts[TrialState.WITHDRAWN] == 1
    assert suggest(database, study) == []
    assert report(database, running).study_state is StudyState.STOPPED
    finish(database, running, "stopped")
    assert end_finished_studies(database) == ["study"]
    ended = study_row(database)
    assert (ended.state, ended.state_reason) == (StudyState.COMPLETED, reason)


def test_a_budget_that_is_not_reached_ends_nothing(database: Database) -> None:
    limits = {"trials": 9, "gpu_hours": 1.0, "wall_hours": 1.0, "target": {"val_top1": 0.9, "val_loss": 0.1}}
    study = make_study(database, budget=limits)
    suggest(database, study)
    finish(database, must_claim(database), metrics={"val_top1": 0.95, "val_loss": 0.2})
    assert end_finished_studies(database) == []
    assert study_row(database).budget_reached_at is None


def test_a_target_reached_by_an_infeasible_trial_does_not_count(database: Database) -> None:
    budget = {"trials": 9, "target": {"val_top1": 0.5}}
    study = make_study(database, budget=budget, constraints=["epoch_seconds <= 1"])
    suggest(database, study)
    finish(database, must_claim(database), metrics={"val_top1": 0.9, "epoch_seconds": 2.0})
    assert end_finished_studies(database) == []
    assert study_row(database).budget_reached_at is None


def fail_invalid(database: Database, message: str = "no data set in /data") -> None:
    finish(database, must_claim(database), "failed", failure_kind="invalid", failure_message=f"{message}\ntrace")


def test_three_invalid_trials_in_a_row_pause_the_study_and_say_why(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 9)
    fail_invalid(database)
    fail_invalid(database)
    finish(database, must_claim(database))
    fail_invalid(database)
    fail_invalid(database)
    assert study_row(database).state is StudyState.ACTIVE
    fail_invalid(database)
    paused = study_row(database)
    assert paused.state is StudyState.PAUSED
    assert paused.state_reason == "3 trials in a row could not be built: no data set in /data"
    assert move(database, StudyState.ACTIVE).state_reason is None
    fail_invalid(database)
    assert study_row(database).state is StudyState.ACTIVE, "after a resume the count begins anew"


def test_other_failures_do_not_pause(database: Database) -> None:
    study = make_study(database)
    suggest(database, study, 3)
    for _ in range(3):
        finish(database, must_claim(database), "failed", failure_kind="oom")
    assert study_row(database).state is StudyState.ACTIVE


def test_paused_trials_are_claimed_again_after_a_resume(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    move(database, StudyState.PAUSED)
    assert report(database, lease).study_state is StudyState.PAUSED
    release(database, lease, "paused")
    with pytest.raises(StaleLeaseError):
        report(database, lease)
    assert record(database, lease.trial_id).state is TrialState.PAUSED
    move(database, StudyState.ACTIVE)
    assert must_claim(database).attempt == 2


def test_what_early_stopping_saves_is_counted(database: Database) -> None:
    study = make_study(database, budget={"trials": 3})
    suggest(database, study, 3)
    stopped, completed, _ = (must_claim(database, name=f"w{place}") for place in range(3))
    epochs = study.spec.task.epochs
    report(database, stopped, measurement(1, gpu_seconds=3.0), measurement(2, gpu_seconds=5.0))
    finish(database, stopped, "stopped")
    report(database, completed, measurement(epochs, gpu_seconds=3.0))
    finish(database, completed)
    with database.transaction() as connection:
        found = studies.get_by_id(connection, study.id)
        assert found.gpu_seconds_saved == 4.0 * (epochs - 2)
        studies.set_state(connection, study.name, StudyState.STOPPED, actor="test")
    with database.transaction() as connection:
        assert studies.get_by_id(connection, study.id).gpu_seconds_saved == 4.0 * (epochs - 2)
