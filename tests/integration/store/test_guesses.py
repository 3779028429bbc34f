"""Guesses are kept once, in order, as long as there is room for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hpo.errors import ConflictError, GuessError, NotFoundError
from hpo.store import Database, events, lifecycle, studies
from hpo.trial import ENQUEUED, Params, StudyState, Suggestion

from .world import OWNER, claim, make_study, must_claim, record, release, study_row, suggest


def _enqueue(database: Database, *guesses: Params, name: str = "study") -> int:
    with database.transaction() as connection:
        return studies.enqueue(connection, name, guesses, actor="ann")


def _add(database: Database, study: studies.StudyRow, lr: float) -> None:
    with database.transaction() as connection:
        generation = studies.acquire_generator(connection, study.id, OWNER, 3600)
        assert generation is not None
        wanted = [Suggestion(params={"lr": lr}, generator=ENQUEUED)]
        lifecycle.suggest(connection, study.id, wanted, owner=OWNER, generation=generation)


def test_those_of_the_spec_come_first_and_none_comes_twice(database: Database) -> None:
    study = make_study(database, optimizer={"enqueue": [{"lr": 0.25}]})
    assert list(study.waiting_guesses) == [{"lr": 0.25}]
    assert _enqueue(database, {"lr": 0.5}, {"lr": 0.25}, {"lr": 0.5}) == 1
    assert _enqueue(database, {"lr": 0.5}) == 0
    assert list(study_row(database).waiting_guesses) == [{"lr": 0.25}, {"lr": 0.5}]
    with database.transaction() as connection:
        told = [event for event in events.list_since(connection, study.id) if event.kind == "study.enqueued"]
    assert [(event.actor, event.detail) for event in told] == [("ann", {"params": {"lr": 0.5}})]


def test_the_same_guess_from_many_at_once_is_kept_once(database: Database) -> None:
    make_study(database)
    with ThreadPoolExecutor(6) as pool:
        added = list(pool.map(lambda place: _enqueue(database, {"lr": 0.5}, {"lr": 0.1 + 0.1 * (place % 2)}), range(6)))
    assert sum(added) == 3
    assert sorted(guess["lr"] for guess in study_row(database).guesses) == [0.1, 0.2, 0.5]


def test_a_guess_that_became_a_trial_waits_no_more(database: Database) -> None:
    study = make_study(database, optimizer={"enqueue": [{"lr": 0.25}, {"lr": 0.5}]})
    _add(database, study, 0.25)
    assert list(study_row(database).waiting_guesses) == [{"lr": 0.5}]
    assert _enqueue(database, {"lr": 0.25}) == 0, "it is still known"


def test_what_is_not_in_the_space_is_refused_with_its_place(database: Database) -> None:
    make_study(database)
    with pytest.raises(GuessError) as caught:
        _enqueue(database, {"lr": 0.5}, {"lr": 7}, {"rl": 0.5})
    assert [issue.path for issue in caught.value.issues] == ["guesses[1].lr", "guesses[2].rl"]
    assert study_row(database).guesses == ()
    with pytest.raises(NotFoundError):
        _enqueue(database, {"lr": 0.5}, name="nowhere")


def test_guesses_fit_the_budget_only_in_place_of_unclaimed_suggestions(database: Database) -> None:
    study = make_study(database, budget={"trials": 3})
    suggest(database, study, 3)
    must_claim(database)
    assert _enqueue(database, {"lr": 0.5}, {"lr": 0.6}) == 2
    with pytest.raises(ConflictError, match="room for 0 more trials, not for 1"):
        _enqueue(database, {"lr": 0.7})
    assert _enqueue(database, {"lr": 0.6}) == 0, "asking again for what is known needs no room"


@pytest.mark.parametrize("state", [StudyState.PAUSED, StudyState.STOPPED])
def test_a_study_that_has_ended_takes_none(database: Database, state: StudyState) -> None:
    make_study(database)
    with database.transaction() as connection:
        studies.set_state(connection, "study", state, actor="test")
    if state is StudyState.PAUSED:
        assert _enqueue(database, {"lr": 0.5}) == 1
    else:
        with pytest.raises(ConflictError, match="has ended"):
            _enqueue(database, {"lr": 0.5})


def test_begun_trials_are_claimed_before_guesses_and_those_before_other_suggestions(database: Database) -> None:
    study = make_study(database)
    (begun, waiting) = suggest(database, study, 2)
    lease = must_claim(database)
    assert lease.trial_id == begun.id
    _add(database, study, 0.5)
    release(database, lease, "drained")
    order = [must_claim(database).trial_id for _ in range(3)]
    assert [order[0], order[2]] == [begun.id, waiting.id]
    assert record(database, order[1]).generator == ENQUEUED
    assert claim(database) is None


def test_what_breaks_a_rule_is_refused_with_the_rule(database: Database) -> None:
    make_study(database, rules=["lr * 2 <= 1"])
    with pytest.raises(GuessError) as caught:
        _enqueue(database, {"lr": 0.5}, {"lr": 0.75})
    (issue,) = caught.value.issues
    assert issue.path == "guesses[1]"
    assert "breaks the rule `lr * 2 <= 1` (lr = 0.75)" in issue.message
    assert study_row(database).guesses == ()
