"""Trials of a study that name the same weights start from the same bytes."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.errors import ConflictError
from hpo.protocol import LoadedWeights, Tensors
from hpo.store import Database, events

from .world import finish, make_study, measurement, must_claim, record, report, suggest

NONE = Tensors(count=0, first=[])
ONE, OTHER = "1" * 64, "2" * 64
TASK: dict[str, Any] = {"dataset": {"root": "/videos"}, "epochs": 10, "base": {"weights": "k400.pth"}}


def loaded(sha256: str = ONE, **changes: Any) -> LoadedWeights:
    return LoadedWeights(
        source="k400.pth",
        sha256=sha256,
        layout="PySlowFast",
        loaded=3,
        **{"adapted": NONE, "reset": Tensors(count=1, first=["head.weight"]), "kept": NONE, "dropped": NONE, **changes},
    )


def test_what_a_trial_started_from_is_kept_and_recorded_once(database: Database) -> None:
    study = make_study(database, task=TASK)
    suggest(database, study)
    lease = must_claim(database)
    assert lease.weights == {}
    report(database, lease, weights=[loaded()])
    report(database, lease, weights=[loaded()])  # the answer to the first was lost
    report(database, lease, measurement(1))
    assert record(database, lease.trial_id).weights == (loaded().model_dump(),)
    with database.transaction() as connection:
        found = [event for event in events.list_since(connection, study.id) if event.kind == "trial.weights"]
    assert [(event.actor, event.detail) for event in found] == [
        ("worker-1", {"attempt": 1, "weights": [loaded().model_dump()]})
    ]


def test_later_trials_learn_which_bytes_are_wanted_and_others_are_refused(database: Database) -> None:
    study = make_study(database, task=TASK)
    suggest(database, study, 3)
    first, second = must_claim(database), must_claim(database, name="worker-2")
    report(database, first, weights=[loaded()])
    with pytest.raises(ConflictError, match=rf"'k400.pth' have the SHA-256 {OTHER} there, .* from {ONE}"):
        report(database, second, weights=[loaded(OTHER)])
    assert record(database, second.trial_id).weights == ()
    assert must_claim(database, name="worker-3").weights == {"k400.pth": ONE}


def test_weights_of_failed_trials_and_of_other_studies_do_not_count(database: Database) -> None:
    study, other = make_study(database, task=TASK), make_study(database, "other", task=TASK)
    suggest(database, study, 2)
    suggest(database, other)
    first = must_claim(database, study)
    report(database, first, weights=[loaded()])
    finish(database, first, "failed", failure_kind="error", failure_message="x")
    assert must_claim(database, study).weights == {}
    assert must_claim(database, other).weights == {}


def test_a_study_without_weights_asks_for_none(database: Database) -> None:
    study = make_study(database)
    suggest(database, study)
    lease = must_claim(database)
    assert '"weights":' not in lease.to_json()
