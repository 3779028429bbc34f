"""Trials of a study that name the same weights start from the same bytes."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.errors import ConflictError, SpecError
from hpo.protocol import LoadedWeights, Tensors
from hpo.store import Database, earlier, events, studies

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
    assert '"measures":' not in lease.to_json()


def test_trials_that_are_learned_from_say_which_bytes_are_wanted(database: Database) -> None:
    old = make_study(database, "old", task=TASK)
    suggest(database, old)
    lease = must_claim(database, old)
    report(database, lease, weights=[loaded()])
    finish(database, lease, metrics={"val_top1": 0.5})
    study = make_study(database, task=TASK, optimizer={"warm_start": ["old"]})
    with database.transaction() as connection:
        assert [trial.weights for trial in earlier.read(connection, study.id)] == [{"k400.pth": ONE}]
        studies.delete(connection, "old", actor="test")
    suggest(database, study)
    new = must_claim(database, study)
    assert new.weights == {"k400.pth": ONE}
    with pytest.raises(ConflictError, match=rf"or of one that it learns from, started from {ONE}"):
        report(database, new, weights=[loaded(OTHER)])
    report(database, new, weights=[loaded()])


def test_trials_without_weights_that_are_learned_from_ask_for_none(database: Database) -> None:
    old = make_study(database, "old")
    suggest(database, old)
    finish(database, must_claim(database, old), metrics={"val_top1": 0.5})
    study = make_study(database, task=TASK, optimizer={"warm_start": ["old"]})
    suggest(database, study)
    assert must_claim(database, study).weights == {}


def test_two_earlier_studies_of_different_files_of_one_name_are_refused(database: Database) -> None:
    for name, sha256 in (("old", ONE), ("older", OTHER)):
        study = make_study(database, name, task=TASK)
        suggest(database, study)
        lease = must_claim(database, study)
        report(database, lease, weights=[loaded(sha256)])
        finish(database, lease, metrics={"val_top1": 0.5})
    with pytest.raises(SpecError) as caught:
        make_study(database, task=TASK, optimizer={"warm_start": ["old", "older"]})
    (issue,) = caught.value.issues
    assert issue.path == "optimizer.warm_start[1]"
    assert f"SHA-256 {OTHER}, those of 'old' from {ONE}" in issue.message
    make_study(database, task=TASK, optimizer={"warm_start": ["old"]})
