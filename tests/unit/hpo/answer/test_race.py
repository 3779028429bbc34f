"""Which of the best configurations is trained again next, and when that is enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.answer import Answer, Candidate, Estimate
from hpo.answer.race import Next, Room, next_trainings
from hpo.spec.finalists import FinalistsConfig
from hpo.trial import FINALISTS, REPLICATE, TrialRecord, TrialState

from ..records import PARAMS, record_of

RULES = FinalistsConfig(top=3, seeds=2, probability=0.9)
ROOM = Room(trials=6, at_once=1, epochs=9)


def params_of(number: int) -> dict[str, Any]:
    return {**PARAMS, "lr": 0.001 * (number + 1)}


def answer_of(*chances: float) -> Answer:
    """Return an answer in which the configuration of trial n has the n-th chance to be the best."""
    estimate = Estimate(observed=0.5, believed=0.5, sd=0.1, expected=0.5, expected_sd=0.1)
    found = [
        Candidate(
            params=params_of(number),
            trials=(number,),
            chosen=number,
            completed=1,
            estimates={"val_top1": estimate},
            probability=chance,
        )
        for number, chance in enumerate(chances)
    ]
    return Answer(
        metric="val_top1",
        candidates=tuple(found),
        front=tuple(found[:1]),
        luckiest=0,
        luckiest_value=0.5,
        trials=len(found),
        clips=None,
        seed_sd=0.03,
    )


def done(number: int, **fields: Any) -> TrialRecord:
    """Return a completed trial of the search: 9 epochs of a second."""
    usual = {"params": params_of(number), "gpu_seconds": 9.0, "epochs_done": 9}
    return record_of(number, TrialState.COMPLETED, values=[0.5] * 9, metrics={"val_top1": 0.5}, **{**usual, **fields})


def again(number: int, of: int, state: TrialState = TrialState.COMPLETED, **fields: Any) -> TrialRecord:
    """Return a further training of the configuration of trial `of`."""
    usual: dict[str, Any] = {"params": params_of(of), "replicate_of": of, "generator": FINALISTS}
    return record_of(number, state, **{**usual, **fields})


SEARCH = [done(number) for number in range(4)]


def asked(chances: tuple[float, ...], *trained: TrialRecord, room: Room = ROOM, rules: FinalistsConfig = RULES) -> Next:
    return next_trainings(answer_of(*chances), [*SEARCH, *trained], rules, room)


def test_the_leader_and_its_closest_rival_take_turns() -> None:
    chances = (0.2, 0.5, 0.3, 0.0)
    assert asked(chances).trials == (1,)
    assert asked(chances, again(4, 1)).trials == (2,)
    assert asked(chances, again(4, 1), again(5, 2)).trials == (1,)
    assert asked(chances, again(4, 1), again(5, 2), again(6, 1)).trials == (0,), "two seeds are all it gets"


def test_only_the_first_few_are_finalists_and_each_gets_so_many_seeds() -> None:
    trained = [again(4 + place, place // 2) for place in range(6)]
    found = asked((0.4, 0.3, 0.2, 0.1), *trained)
    assert found.trials == ()
    assert found.over is not None
    assert found.over.startswith(
        "after 6 further trainings trial 0 is the best of 3 finalists with a probability of 44%"
    )


def test_a_finalist_stays_one_when_another_overtakes_it() -> None:
    trained = [again(4, 0), again(5, 0), again(6, 1), again(7, 1), again(8, 2), again(9, 2)]
    assert asked((0.1, 0.2, 0.3, 0.4), *trained, room=replace(ROOM, trials=9)).over is not None


def test_a_clear_leader_needs_one_further_training() -> None:
    assert asked((0.95, 0.02, 0.02, 0.01)).trials == (0,)
    assert asked((0.95, 0.02, 0.02, 0.01), again(4, 0)).over is not None
    assert asked((0.95, 0.02, 0.02, 0.01), again(4, 0, TrialState.RUNNING)).over is None
    # A training that failed confirms nothing.
    assert asked((0.95, 0.02, 0.02, 0.01), again(4, 0, TrialState.FAILED)).trials == (1,)
    # Clear is meant among the finalists: what is none of them gets no seeds.
    assert asked((0.5, 0.02, 0.02, 0.01), again(4, 0)).over is not None


def test_as_many_at_once_as_there_are_workers() -> None:
    at_once = replace(ROOM, at_once=3)
    assert asked((0.5, 0.3, 0.2, 0.0), room=at_once).trials == (0, 1, 0)
    assert len(asked((0.5, 0.3, 0.2, 0.0), again(4, 0, TrialState.RUNNING), room=at_once).trials) == 2
    assert asked((0.5, 0.3, 0.2, 0.0), again(4, 0, TrialState.SUGGESTED)) == Next(trials=())


def test_the_number_of_trainings_is_limited() -> None:
    room = replace(ROOM, trials=2, at_once=9)
    assert len(asked((0.5, 0.3, 0.2), room=room).trials) == 2
    assert asked((0.5, 0.3, 0.2), again(4, 0), again(5, 1, TrialState.RUNNING), room=room) == Next(trials=())
    assert asked((0.5, 0.3, 0.2), again(4, 0), again(5, 1), room=room).over is not None


def test_what_a_person_had_trained_counts_as_a_seed_and_not_as_a_training_of_finalists() -> None:
    room = replace(ROOM, trials=1)
    by_hand = [again(4, 0, generator=REPLICATE), again(5, 0, generator=REPLICATE)]
    assert asked((0.6, 0.4), *by_hand, room=room).trials == (1,)


def test_failed_trainings_count_and_withdrawn_ones_do_not() -> None:
    failed = [again(4, 0, TrialState.FAILED), again(5, 0, TrialState.FAILED)]
    assert asked((0.6, 0.4), *failed).trials == (1,)
    withdrawn = [again(4, 0, TrialState.WITHDRAWN), again(5, 0, TrialState.WITHDRAWN)]
    assert asked((0.6, 0.4), *withdrawn).trials == (0,)


@pytest.mark.parametrize(("left", "trials"), [(8.9, ()), (9.0, (0,)), (17.9, (0,)), (18.0, (0, 1))])
def test_none_begins_for_which_too_little_time_is_left(left: float, trials: tuple[int, ...]) -> None:
    room = replace(ROOM, at_once=2, gpu_seconds=left)
    assert asked((0.6, 0.4), room=room).trials == trials


def test_what_runs_keeps_the_time_that_it_needs() -> None:
    running = again(4, 0, TrialState.RUNNING, gpu_seconds=4.0, epochs_done=4)
    room = replace(ROOM, at_once=2)
    assert asked((0.6, 0.4), running, room=replace(room, gpu_seconds=13.9)) == Next(trials=())
    assert asked((0.6, 0.4), running, room=replace(room, gpu_seconds=14.0)).trials == (1,)


def test_a_training_costs_its_start_up_too_until_that_is_over() -> None:
    room = replace(ROOM, at_once=2, startup_seconds=3.0)
    assert asked((0.6, 0.4), room=replace(room, gpu_seconds=11.9)).over is not None
    assert asked((0.6, 0.4), room=replace(room, gpu_seconds=12.0)).trials == (0,)
    running = again(4, 0, TrialState.RUNNING, gpu_seconds=4.0, epochs_done=4)
    assert asked((0.6, 0.4), running, room=replace(room, gpu_seconds=16.9)) == Next(trials=())
    assert asked((0.6, 0.4), running, room=replace(room, gpu_seconds=17.0)).trials == (1,)
    waiting = again(4, 0, TrialState.SUGGESTED)
    assert asked((0.6, 0.4), waiting, room=replace(room, gpu_seconds=23.9)) == Next(trials=())
    assert asked((0.6, 0.4), waiting, room=replace(room, gpu_seconds=24.0)).trials == (1,)


def test_a_stopped_trial_costs_what_all_epochs_would_have() -> None:
    stopped = done(0, epochs_done=3, gpu_seconds=3.0)
    room = replace(ROOM, gpu_seconds=8.0)
    assert next_trainings(answer_of(1.0), [stopped], RULES, room).over is not None
    assert next_trainings(answer_of(1.0), [stopped], RULES, replace(room, gpu_seconds=9.0)).trials == (0,)


@given(
    weights=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=4),
    top=st.integers(2, 4),
    seeds=st.integers(1, 3),
    trials=st.integers(1, 9),
    workers=st.integers(1, 4),
    data=st.data(),
)
@settings(deadline=None)
def test_every_race_ends_within_its_limits(  # noqa: PLR0917 - what hypothesis draws
    weights: list[float], top: int, seeds: int, trials: int, workers: int, data: st.DataObject
) -> None:
    """Trainings end in any order and change the chances as they like."""
    rules = FinalistsConfig(top=top, seeds=seeds, probability=0.9)
    room = Room(trials=trials, at_once=workers, epochs=9)
    records = [done(number) for number in range(len(weights))]
    for _ in range(40):
        chances = data.draw(st.permutations(weights))
        found = next_trainings(answer_of(*(one / sum(weights) for one in chances)), records, rules, room)
        records += [again(len(records) + place, of, TrialState.RUNNING) for place, of in enumerate(found.trials)]
        running = [place for place, record in enumerate(records) if record.state is TrialState.RUNNING]
        assert len(running) <= workers
        if found.over is not None or not running:
            break
        ended = data.draw(st.sampled_from(running))
        state = data.draw(st.sampled_from([TrialState.COMPLETED, TrialState.FAILED]))
        records[ended] = replace(records[ended], state=state)
    assert found.over is not None, "a race without running trainings has more or is over"
    trained = [record.replicate_of for record in records if record.replicate_of is not None]
    assert len(trained) <= trials
    assert len(set(trained)) <= top
    assert all(trained.count(number) <= seeds for number in set(trained))
