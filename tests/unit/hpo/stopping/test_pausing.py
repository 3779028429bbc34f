"""Trials that wait at a sixth of their length, and which of them goes on."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.spec import StudySpec
from hpo.stopping.decide import decide, promotions
from hpo.trial import Decision, TrialRecord, TrialState

from ..records import record_of, spec_with

EPOCHS = 9
RUNG = 2
"""The first rung from a sixth of nine epochs on; seven are left beyond it, as many as four trials explore."""


def _spec(**sections: Any) -> StudySpec:
    return spec_with(epochs=EPOCHS, **{"early_stopping": {"name": "curves", "pause": True}, **sections})


def _rising(value: float, epochs: int = RUNG) -> list[float]:
    """Return a curve whose first epochs end at `value`."""
    return [value - 0.1 / (step + 1) for step in range(epochs - 1)] + [value]


def _waiting(id: int, value: float) -> TrialRecord:
    return record_of(id, TrialState.PAUSED, values=_rising(value))


_BEHIND = [_waiting(id, 0.2) for id in (10, 11, 12)]


@pytest.mark.parametrize("epochs", range(1, EPOCHS + 1))
def test_a_trial_waits_at_a_sixth_of_its_length_and_nowhere_else(epochs: int) -> None:
    decision = decide(_spec(), record_of(0, values=_rising(0.5, epochs)), [])
    assert decision is (Decision.PAUSE if epochs == RUNG else Decision.CONTINUE)


@pytest.mark.parametrize("every", [2, 3, 4])
def test_a_trial_that_is_not_validated_after_every_epoch_waits_after_the_first_validation(every: int) -> None:
    values = dict(enumerate(_rising(0.5, EPOCHS), start=1))
    pauses = []
    for epochs in range(1, EPOCHS + 1):
        seen = {
            step: {"val_top1": values[step]} if step % every == 0 else {"train_loss": 1.0}
            for step in range(1, epochs + 1)
        }
        record = replace(record_of(0), curve=seen, epochs_done=epochs)
        pauses += [epochs] if decide(_spec(), record, []) is Decision.PAUSE else []
    assert pauses == [every]


def test_without_pausing_no_trial_waits() -> None:
    spec = _spec(early_stopping={"name": "curves"})
    assert decide(spec, record_of(0, values=_rising(0.5)), []) is Decision.CONTINUE


def test_a_trial_of_a_single_epoch_does_not_pause() -> None:
    spec = spec_with(epochs=1, early_stopping={"name": "curves", "pause": True})
    assert decide(spec, record_of(0, values=[0.5]), []) is Decision.CONTINUE


def test_the_best_is_promoted_once_exploration_took_as_many_epochs_as_it_needs() -> None:
    assert promotions(_spec(), [_waiting(0, 0.5), *_BEHIND[:2]]) == []
    assert promotions(_spec(), [_waiting(0, 0.5), _waiting(1, 0.4), *_BEHIND]) == [0]
    assert promotions(_spec(), [_waiting(0, 0.4), _waiting(1, 0.5), *_BEHIND]) == [1]
    # A trial that is the best itself does not wait at all, and one that is not lets the other go first.
    others = [_waiting(0, 0.4), *_BEHIND]
    assert decide(_spec(), record_of(1, values=_rising(0.5)), others) is Decision.CONTINUE
    assert decide(_spec(), record_of(1, values=_rising(0.3)), others) is Decision.PAUSE


def test_a_promoted_trial_counts_with_all_epochs_that_it_needs() -> None:
    others = [_waiting(0, 0.4), _waiting(1, 0.5), *_BEHIND]
    running = record_of(3, values=_rising(0.6))
    assert promotions(_spec(), [*others, running]) == []
    assert promotions(_spec(), [*others, replace(running, state=TrialState.PAUSED)]) == [3]


def test_less_is_better_where_the_objective_is_minimized() -> None:
    spec = _spec(objectives=[{"metric": "val_top1", "direction": "minimize"}])
    assert promotions(spec, [_waiting(0, 0.5), _waiting(1, 0.4), *(_waiting(id, 0.7) for id in (10, 11))]) == [1]


def test_with_constraints_the_feasible_go_first() -> None:
    spec = _spec(constraints=["epoch_seconds <= 10"])

    def waiting(id: int, value: float, seconds: float) -> TrialRecord:
        curve = {step: {"val_top1": value, "epoch_seconds": seconds} for step in range(1, RUNG + 1)}
        return record_of(id, TrialState.PAUSED, curve=curve)

    slow = [waiting(id, 0.9, 20.0) for id in (0, 10, 11)]
    assert promotions(spec, [*slow, waiting(1, 0.4, 5.0)]) == [1]


def test_once_all_trials_have_begun_those_with_a_chance_are_promoted() -> None:
    done = [
        record_of(n, TrialState.COMPLETED, values=_rising(0.8 + n / 50, EPOCHS), metrics={"val_top1": 0.8 + n / 50})
        for n in range(6)
    ]
    near, hopeless = _waiting(6, 0.82), record_of(7, TrialState.PAUSED, values=[0.05, 0.05])
    assert promotions(_spec(budget={"trials": 9}), [*done, near, hopeless]) == []
    assert promotions(_spec(budget={"trials": 8}), [*done, near, hopeless]) == [6]
    # No other trial comes in the place of one that failed, before or after it reported.
    failed = [record_of(8, TrialState.FAILED), record_of(9, TrialState.FAILED, values=[0.1])]
    assert promotions(_spec(budget={"trials": 10}), [*done, near, hopeless, *failed]) == [6]


@pytest.mark.slow
@given(seed=st.integers(0, 10**6), trials=st.integers(2, 14))
@settings(max_examples=25, deadline=None)
def test_half_of_the_effort_explores_and_the_best_is_finished_in_the_end(seed: int, trials: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a game, not a secret
    spec = _spec(budget={"trials": trials})
    ends = [rng.random() for _ in range(trials)]
    curves = [[end * (1 - 0.5**step) for step in range(1, EPOCHS + 1)] for end in ends]
    records: dict[int, TrialRecord] = {}
    while True:
        allowed = promotions(spec, list(records.values()))
        if not allowed and len(records) == trials:
            break
        id = allowed[0] if allowed else len(records)
        records.setdefault(id, record_of(id))
        records[id] = _trained(spec, records[id], curves[id], list(records.values()))
        beyond = sum(max(len(record.curve) - RUNG, 0) for record in records.values())
        if len(records) < trials:
            assert beyond <= sum(min(len(record.curve), RUNG) for record in records.values())
    assert records[max(range(trials), key=lambda id: ends[id])].state is TrialState.COMPLETED


def _trained(spec: StudySpec, record: TrialRecord, curve: list[float], others: list[TrialRecord]) -> TrialRecord:
    """Return a trial after training until it waits or ends."""
    for step in range(len(record.curve) + 1, EPOCHS + 1):
        shown = {**record.curve, step: {"val_top1": curve[step - 1]}}
        record = replace(record, state=TrialState.RUNNING, curve=shown)
        if step < EPOCHS and decide(spec, record, others) is Decision.PAUSE:
            return replace(record, state=TrialState.PAUSED)
    return replace(record, state=TrialState.COMPLETED, metrics=record.curve[EPOCHS])


def test_a_trial_of_one_epoch_never_waits_even_behind_a_better_one() -> None:
    spec = spec_with(epochs=1, early_stopping={"name": "curves", "pause": True})
    better = record_of(1, TrialState.PAUSED, values=[0.9])
    assert decide(spec, record_of(0, values=[0.1]), [better]) is Decision.CONTINUE


def test_a_rung_at_exactly_a_sixth_is_where_trials_wait() -> None:
    """Of twelve epochs the rungs are 2, 3, 4, 6, 9 and 12, and a sixth is 2."""
    spec = spec_with(epochs=12, early_stopping={"name": "curves", "pause": True})
    assert [decide(spec, record_of(0, values=_rising(0.5, epochs)), []) for epochs in (2, 3)] == [
        Decision.PAUSE,
        Decision.CONTINUE,
    ]


def test_half_of_the_effort_may_be_spent_on_finishing_to_the_last_epoch() -> None:
    """Seven epochs are left to the best; three trials have explored two each and one has explored one: seven."""
    waiting = [_waiting(0, 0.5), *_BEHIND[:2]]
    assert promotions(_spec(), [*waiting, record_of(3)]) == []
    assert promotions(_spec(), [*waiting, record_of(3, values=[0.1])]) == [0]


def test_of_equal_trials_the_earlier_is_promoted() -> None:
    trials = [_waiting(1, 0.5), _waiting(0, 0.5)]
    assert promotions(_spec(), [*trials, *_BEHIND]) == [0]


def test_the_best_is_the_one_that_is_expected_to_end_best() -> None:
    """What the one with the lower value has gained last promises more."""
    flat = record_of(0, TrialState.PAUSED, values=[0.5, 0.5])
    steep = record_of(1, TrialState.PAUSED, values=[0.1, 0.49])
    spec = _spec(early_stopping={"name": "curves", "pause": True, "min_epochs": 1})
    assert promotions(spec, [flat, steep, *_BEHIND]) == [1]


def test_of_several_objectives_what_the_trials_have_shown_is_compared() -> None:
    """There is no model of several curves: the slope that decides with one objective counts for nothing."""
    spec = _spec(
        objectives=[{"metric": "val_top1"}, {"metric": "epoch_seconds"}],
        early_stopping={"name": "curves", "pause": True, "min_epochs": 1},
    )

    def waiting(id: int, first: float, second: float) -> TrialRecord:
        curve = {step: {"val_top1": value, "epoch_seconds": 9.0} for step, value in enumerate((first, second), start=1)}
        return record_of(id, TrialState.PAUSED, curve=curve)

    assert promotions(
        spec, [waiting(0, 0.5, 0.5), waiting(1, 0.1, 0.49), waiting(2, 0.1, 0.2), waiting(3, 0.1, 0.2)]
    ) == [0]
