"""Which weights somebody needs, and which may go: for any trials and any policy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.answer import Answer, Candidate, answer
from hpo.answer.keeping import needed, verdicts, worst_first
from hpo.protocol import Keep
from hpo.spec.finalists import FinalistsConfig
from hpo.trial import RESULT_STATES, TrialRecord, TrialState

from ..records import PARAMS, record_of, spec_with


def trial(
    number: int, state: TrialState, value: float, *, same_as: int, replicate_of: int | None = None
) -> TrialRecord:
    """Return a trial of the configuration of `same_as`, whose id is not its number."""
    has_metrics = state in RESULT_STATES
    return record_of(
        100 + number,
        state,
        metrics={"val_top1": value} if has_metrics else None,
        number=number,
        params={**PARAMS, "lr": 0.001 * (1 + same_as)},
        replicate_of=replicate_of,
    )


@st.composite
def any_trials(draw: st.DrawFn) -> list[TrialRecord]:
    """Return up to ten trials in all states, some of the same configurations."""
    found: list[TrialRecord] = []
    for number in range(draw(st.integers(0, 10))):
        state = draw(st.sampled_from(list(TrialState)))
        first = draw(st.sampled_from([None, *(one.number for one in found if one.replicate_of is None)]))
        value = draw(st.sampled_from([0.25, 0.5, 0.75, 1.0]))
        same_as = number if first is None else first
        found.append(trial(number, state, value, same_as=same_as, replicate_of=first))
    return found


POLICIES = st.none() | st.fixed_dictionaries(
    {"last": st.booleans(), "stopped": st.booleans()}, optional={"every": st.just(2), "quota_gb": st.just(1.0)}
)


@settings(max_examples=40)
@given(any_trials(), POLICIES, st.none() | st.integers(2, 4), st.sets(st.integers(0, 9)))
def test_what_is_needed_stays_for_any_trials_and_policy(
    records: list[TrialRecord], policy: dict[str, Any] | None, top: int | None, exported: set[int]
) -> None:
    spec = spec_with(checkpoints=policy) if policy is not None else spec_with()
    found = answer(spec, records)
    finalists = None if top is None else FinalistsConfig(top=top)
    reasons = needed(found, records, finalists=finalists, exported=exported)
    judged = verdicts(spec, records, reasons)
    keeps = {one.trial.number: one.keep for one in judged}
    free = worst_first(found, judged)
    assert len(judged) == len(records)
    protected = set(exported)
    if found is not None:
        leaders = found.candidates[: 1 if top is None else top]
        protected |= {number for one in leaders for number in one.trials} | {found.luckiest}
    for record in records:
        again = [other for other in records if other.replicate_of == record.number and other.state in RESULT_STATES]
        if not record.state.is_terminal:
            assert keeps[record.number] is Keep.ALL
            assert record.id not in free
        elif record.state not in RESULT_STATES:
            assert (keeps[record.number], record.id in free) == (Keep.NOTHING, True)
        elif record.number in protected or again or record.replicate_of is not None:
            assert (keeps[record.number], record.id in free) == (Keep.WEIGHTS, False)
        else:
            assert record.id in free
            if policy is None:
                assert keeps[record.number] is Keep.WEIGHTS
    assert len(set(free)) == len(free)


def test_a_quota_takes_the_worst_first_and_what_has_no_place_before_all() -> None:
    states = [TrialState.COMPLETED] * 4 + [TrialState.FAILED, TrialState.STOPPED]
    values = [0.6, 0.9, 0.3, 0.5, 0.0, 0.1]
    records = [trial(n, state, value, same_as=n) for n, (state, value) in enumerate(zip(states, values, strict=True))]
    spec = spec_with()
    found = answer(spec, records)
    judged = verdicts(spec, records, needed(found, records, finalists=None))
    assert worst_first(found, judged) == [104, 105, 102, 103, 100]


def _candidate(*trials: int) -> Candidate:
    return Candidate(
        params=PARAMS, trials=trials, chosen=trials[0], completed=len(trials), estimates={}, probability=0.5
    )


@pytest.mark.parametrize(("top", "numbers"), [(None, {0, 1, 4, 7}), (2, {0, 1, 2, 3, 4, 7})])
def test_the_whole_front_the_finalists_and_the_highest_value_are_needed(top: int | None, numbers: set[int]) -> None:
    best, second, third, last = _candidate(0, 1), _candidate(2, 3), _candidate(4), _candidate(5)
    found = Answer(
        metric="val_top1",
        candidates=(best, second, third, last),
        front=(best, third),
        luckiest=7,
        luckiest_value=0.9,
        trials=7,
        clips=None,
        seed_sd=0.0,
    )
    finalists = None if top is None else FinalistsConfig(top=top)
    assert set(needed(found, [], finalists=finalists)) == numbers


@pytest.mark.parametrize(
    ("policy", "state", "keep"),
    [
        ({}, TrialState.COMPLETED, Keep.WEIGHTS),
        ({"last": False}, TrialState.COMPLETED, Keep.FURTHER),
        ({"last": False}, TrialState.STOPPED, Keep.FURTHER),
        ({"stopped": False}, TrialState.COMPLETED, Keep.WEIGHTS),
        ({"stopped": False}, TrialState.STOPPED, Keep.NOTHING),
        ({}, TrialState.FAILED, Keep.NOTHING),
        ({}, TrialState.SUGGESTED, Keep.ALL),
        ({"stopped": False, "last": False}, TrialState.PAUSED, Keep.ALL),
    ],
)
def test_the_policy_says_what_stays_of_a_trial_that_nobody_needs(
    policy: dict[str, Any], state: TrialState, keep: Keep
) -> None:
    (found,) = verdicts(spec_with(checkpoints=policy), [trial(0, state, 0.5, same_as=0)], {})
    assert found.keep is keep
