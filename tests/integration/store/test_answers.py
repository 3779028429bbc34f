"""The answer of a study is computed when a trial has ended, and kept until the next one does."""

from __future__ import annotations

from collections import OrderedDict

import pytest

from hpo.answer import Answer
from hpo.store import Database, answers, studies
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
