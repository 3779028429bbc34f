"""What a study takes over is a copy: nothing that happens to the earlier study later changes it."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from hpo.errors import SpecError
from hpo.store import Database, earlier, events, studies

from .world import finish, make_study, must_claim, study_row, suggest


def _earlier(database: Database, name: str = "old", count: int = 3) -> None:
    study = make_study(database, name)
    suggest(database, study, count)
    for place in range(count):
        finish(database, must_claim(database, study), metrics={"val_top1": 0.1 * place})


def _read(database: Database, name: str = "study") -> list[tuple[str, float, float]]:
    with database.transaction() as connection:
        found = earlier.read(connection, studies.get(connection, name).id)
    return [(trial.study, float(trial.params["lr"]), trial.metrics["val_top1"]) for trial in found]


def test_trials_are_copied_when_the_study_is_made(database: Database) -> None:
    _earlier(database)
    narrow = {"lr": {"type": "float", "low": 1e-6, "high": 0.0025}}
    study = make_study(database, optimizer={"warm_start": ["old"]}, space=narrow)
    (first, second) = _read(database)
    assert (first[:2], second[:2]) == (("old", 0.001), ("old", 0.002))
    assert 0.0 < first[2] < second[2] < 0.2, "values as expected on new data, drawn towards the others"
    with database.transaction() as connection:
        assert earlier.counts(connection, study.id, study.spec) == {"old": 2}
        told = [event.detail for event in events.list_since(connection, study.id) if event.kind == "study.warm_started"]
    assert told == [{"study": "old", "taken": 2, "left_out": 1}]


def test_later_changes_of_the_earlier_study_change_nothing(database: Database) -> None:
    _earlier(database)
    make_study(database, optimizer={"warm_start": ["old"]})
    before = _read(database)
    source = study_row(database, "old")
    suggest(database, source, 1)
    finish(database, must_claim(database, source), metrics={"val_top1": 0.9})
    assert _read(database) == before
    with database.transaction() as connection:
        studies.delete(connection, "old", actor="test")
    assert _read(database) == before
    with database.transaction() as connection:
        studies.delete(connection, "study", actor="test")
        assert connection.execute(text("SELECT count(*) FROM earlier_trial")).scalar_one() == 0


def test_a_study_that_is_not_there_is_named_and_nothing_is_stored(database: Database) -> None:
    _earlier(database)
    with pytest.raises(SpecError) as caught:
        make_study(database, optimizer={"warm_start": ["old", "odl", "study"]})
    assert {issue.path: "no study" in issue.message for issue in caught.value.issues} == {
        "optimizer.warm_start[1]": True,
        "optimizer.warm_start[2]": True,
    }
    assert "'old'" in caught.value.issues[0].message
    with database.transaction() as connection:
        assert [row.name for row in studies.list_all(connection)] == ["old"]
