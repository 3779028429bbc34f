"""Trials that the stopping rule paused: who lets them go on, and when they end."""

from __future__ import annotations

import pytest

from hpo.store import Database, lifecycle
from hpo.store.studies import StudyRow
from hpo.trial import TrialState

from .world import claim, finish, make_study, measurement, must_claim, record, release, report, run, suggest

PAUSING = {"name": "asha", "min_epochs": 1, "reduction": 2, "pause": True}


def hold(database: Database, study: StudyRow) -> int:
    """Return the id of a trial that the stopping rule pauses after its first epoch."""
    lease = must_claim(database, study)
    report(database, lease, measurement(1, 0.25))
    release(database, lease, "paused", checkpoint="/c")
    return lease.trial_id


def promote(database: Database, study: StudyRow, trial_id: int) -> int:
    with database.transaction() as connection:
        return lifecycle.promote(connection, study.id, [trial_id], actor="test")


def close_held(database: Database, study: StudyRow) -> int:
    with database.transaction() as connection:
        return lifecycle.close_held(connection, study.id, actor="test")


@pytest.mark.parametrize("closed", ["state = 'paused'", "budget_reached_at = clock_timestamp()"])
def test_a_trial_is_promoted_only_while_its_study_is_open(database: Database, closed: str) -> None:
    study = make_study(database, early_stopping=PAUSING)
    suggest(database, study)
    held = hold(database, study)
    run(database, f"UPDATE study SET {closed}")  # noqa: S608 - the two lines above
    assert promote(database, study, held) == 0
    run(database, "UPDATE study SET state = 'active', budget_reached_at = NULL")
    assert claim(database, study) is None
    assert promote(database, study, held) == 1
    assert must_claim(database, study).trial_id == held


def test_held_trials_end_when_nothing_else_is_open(database: Database) -> None:
    study = make_study(database, early_stopping=PAUSING, budget={"trials": 2})
    suggest(database, study, 2)
    held = hold(database, study)
    other = must_claim(database, study)
    assert close_held(database, study) == 0
    finish(database, other)
    assert close_held(database, study) == 1
    ended = record(database, held)
    assert (ended.state, ended.metrics) == (TrialState.STOPPED, {"val_top1": 0.25})
