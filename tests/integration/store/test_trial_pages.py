"""A page of trials and one metric of all curves are what the whole records say."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.results.outcome import final_metrics
from hpo.store import Database, overview, trials
from hpo.store.studies import StudyRow
from hpo.trial import TrialState

from .world import expire, finish, make_study, measurement, must_claim, reap, report, run, skip_backoff, suggest

TASK: dict[str, Any] = {"dataset": {"root": "/data"}, "epochs": 9}


def _study(database: Database, last_epochs: int = 1) -> StudyRow:
    """Return a study of six trials: completed, stopped, failed, lost and begun again, running, suggested."""
    objectives = [{"metric": "val_top1", "last_epochs": last_epochs}]
    study = make_study(database, objectives=objectives, task=TASK)
    suggest(database, study, 6)
    for outcome, more in (("completed", {}), ("stopped", {}), ("failed", {"failure_kind": "error"})):
        lease = must_claim(database, study)
        report(database, lease, *(measurement(step, step / 10) for step in range(1, 6)))
        finish(database, lease, outcome, **more)
    lost = must_claim(database, study)
    report(database, lost, measurement(1, 0.1), measurement(2, 0.2), measurement(3, 0.3))
    expire(database, lost.trial_id)
    reap(database)
    skip_backoff(database, lost.trial_id)
    report(database, must_claim(database, study), measurement(2, 0.7), measurement(4, 0.8))
    must_claim(database, study)
    return study


@pytest.mark.parametrize("last_epochs", [1, 3])
def test_a_page_is_a_part_of_the_records_with_the_ends_of_the_curves(database: Database, last_epochs: int) -> None:
    study = _study(database, last_epochs)
    with database.transaction() as connection:
        records = trials.records(connection, study.id)
        page = trials.page(connection, study.id, after=0, states=None, limit=4)
        done = trials.page(connection, study.id, after=-1, states=[TrialState.STOPPED, TrialState.FAILED], limit=9)
    assert [trial.number for trial in page] == [1, 2, 3, 4]
    assert [trial.number for trial in done] == [1, 2]
    for trial in [*page, *done]:
        whole = records[trial.number]
        ends = dict(list(whole.curve.items())[-last_epochs:])
        assert trial.curve == ends
        assert {**vars_of(trial), "curve": None} == {**vars_of(whole), "curve": None}


@pytest.mark.parametrize("last_epochs", [1, 3])
def test_results_are_the_trials_with_a_result_and_their_final_values(database: Database, last_epochs: int) -> None:
    study = _study(database, last_epochs)
    # As a trial that a person cancels is stored: its values are those of the end of its curve.
    run(database, "UPDATE trial SET metrics = NULL WHERE state = 'stopped'")
    with database.transaction() as connection:
        records = trials.records(connection, study.id)
        found = overview.results(connection, study.id, after=-1, limit=9)
        assert [trial.number for trial in overview.results(connection, study.id, after=0, limit=9)] == [1]
        assert [trial.number for trial in overview.results(connection, study.id, after=-1, limit=1)] == [0]
    assert [(trial.number, trial.state) for trial in found] == [(0, TrialState.COMPLETED), (1, TrialState.STOPPED)]
    assert [final_metrics(trial) for trial in found] == [final_metrics(record) for record in records[:2]]


def vars_of(record: object) -> dict[str, Any]:
    """Return the fields of a record."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}  # type: ignore[attr-defined]  # a dataclass


def test_curves_of_a_metric_are_those_of_the_records_and_thin_out_evenly(database: Database) -> None:
    study = _study(database)
    with database.transaction() as connection:
        records = [record for record in trials.records(connection, study.id) if record.curve]
        found = trials.metric_curves(connection, study.id, "val_top1")
        thin = trials.metric_curves(connection, study.id, "val_top1", every=3)
        assert trials.metric_curves(connection, study.id, "nothing") == []
    assert [(curve.number, curve.state) for curve in found] == [(record.number, record.state) for record in records]
    shown = [dict(zip(curve.steps, curve.values, strict=True)) for curve in found]
    assert shown == [{step: row["val_top1"] for step, row in record.curve.items()} for record in records]
    assert shown[3] == {1: 0.1, 2: 0.7, 3: 0.3, 4: 0.8}, "the later attempt counts"
    assert [curve.steps for curve in thin] == [[1, 3, 5]] * 3 + [[1, 3, 4]]
