"""Ending studies holds no lock longer than it must."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text

from hpo.protocol import Lease
from hpo.service import finishing
from hpo.service.finishing import end_finished_studies
from hpo.store import Database, edits
from hpo.store.studies import StudyRow
from hpo.trial import StudyState, TrialState

from ..store import world
from .test_finalists import searched

PAUSING = {"name": "asha", "min_epochs": 1, "reduction": 2, "startup_trials": 0, "pause": True}


def idle(database: Database) -> None:
    world.make_study(database)


def full(database: Database) -> None:
    world.suggest(database, world.make_study(database, budget={"trials": 1}))
    world.must_claim(database)


def ending(database: Database) -> None:
    """Make a study whose GPU hours are used up by a trial that has not heard of it yet."""
    world.suggest(database, world.make_study(database, budget={"gpu_hours": 1e-6}), 2)
    world.report(database, world.must_claim(database), world.measurement(1, 0.5, 9.0))


def holding(database: Database) -> tuple[Lease, Lease]:
    """Make a study in which one trial is paused by the stopping rule while another runs; return their leases."""
    world.suggest(database, world.make_study(database, early_stopping=PAUSING, budget={"trials": 2}), 2)
    held, other = world.must_claim(database), world.must_claim(database)
    for lease, value in ((held, 0.25), (other, 0.75)):
        world.report(database, lease, world.measurement(1, value))
    world.release(database, held, "paused", checkpoint="/c")
    return held, other


def racing(database: Database) -> None:
    searched(database)


@pytest.mark.parametrize("make", [idle, full, ending, holding, racing])
def test_a_study_in_which_nothing_is_to_do_is_not_locked(
    database: Database, make: Callable[[Database], object]
) -> None:
    make(database)
    end_finished_studies(database)
    before = world.study_row(database)
    with database.transaction() as other:
        other.execute(text("SELECT id FROM study FOR UPDATE"))
        other.execute(text("SELECT id FROM trial FOR UPDATE"))
        # Whoever waits for a lock here gets none for 20 s, and then an error.
        assert end_finished_studies(database) == []
    assert world.study_row(database).counts == before.counts


def test_a_study_is_free_while_the_next_one_is_settled(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        study = world.make_study(database, name, budget={"trials": 1})
        world.suggest(database, study)
        world.finish(database, world.must_claim(database, study))
    settle = finishing._settle

    def settle_and_look(connection: Connection, found: StudyRow) -> bool:
        has_ended = settle(connection, found)
        if found.name == "second":
            with database.transaction() as other:
                other.execute(text("SELECT id FROM study WHERE name = 'first' FOR UPDATE NOWAIT"))
            assert world.study_row(database, "first").state is StudyState.COMPLETED
        return has_ended

    monkeypatch.setattr(finishing, "_settle", settle_and_look)
    assert end_finished_studies(database) == ["first", "second"]


@pytest.mark.parametrize(
    "change",
    [
        {"budget": {"trials": 1}},
        {"budget": {"trials": 9, "target": {"val_top1": 0.4}}},
        {"budget": {"trials": 9, "gpu_hours": 1e-9}},
        {"budget": {"trials": 9}, "space": {"lr": {"type": "categorical", "choices": [0.001]}}},
    ],
    ids=["trials", "target", "hours", "space"],
)
def test_the_result_that_ends_a_study_ends_it_at_once(database: Database, change: dict[str, Any]) -> None:
    study = world.make_study(database, **change)
    world.suggest(database, study, 1)
    lease = world.must_claim(database)
    world.finish(database, lease)
    assert finishing.end_study_after_result(database, lease.trial_id)
    assert world.study_row(database).state is StudyState.COMPLETED


def test_a_result_among_many_settles_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    study = world.make_study(database)
    other = world.make_study(database, "other", early_stopping=PAUSING)
    trial, *_ = world.suggest(database, study, 2)
    trial_of_other, *_ = world.suggest(database, other, 2)
    world.finish(database, world.must_claim(database))
    settled: list[int] = []
    monkeypatch.setattr(finishing, "end_study_if_finished", lambda _, study_id: settled.append(study_id))
    finishing.end_study_after_result(database, trial.id)
    assert not settled
    finishing.end_study_after_result(database, trial_of_other.id)
    assert settled == [other.id], "it may have promoted a paused trial"


ALWAYS_ASKED = {"min_epochs": 1, "startup_trials": 0}


@pytest.mark.parametrize(
    ("rule", "continues"),
    [
        ({"name": "none"}, True),
        ({"name": "median", "min_epochs": 1}, True),
        ({"name": "patient", "patience": 3, **ALWAYS_ASKED}, True),
        ({"name": "threshold", "lower": 0.5, **ALWAYS_ASKED}, False),
        ({**PAUSING, "pause": False}, False),
    ],
    ids=["none", "median", "patient", "threshold", "asha"],
)
def test_a_new_rule_decides_about_the_trials_that_the_old_one_paused(
    database: Database, rule: dict[str, Any], continues: bool
) -> None:
    held, other = holding(database)
    with database.transaction() as connection:
        edits.change(connection, "study", {"early_stopping": rule}, actor="test")
    end_finished_studies(database)
    claimed = world.claim(database)
    assert (claimed is not None and claimed.trial_id == held.trial_id) == continues
    world.finish(database, other)
    end_finished_studies(database)
    assert world.record(database, held.trial_id).state is (TrialState.RUNNING if continues else TrialState.STOPPED)
    assert world.study_row(database).fault is None
