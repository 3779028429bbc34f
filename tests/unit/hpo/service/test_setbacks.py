"""For how long an optimizer leaves a study alone that raised errors in it."""

from __future__ import annotations

from hpo.service.setbacks import GROWTH, MOST_SECONDS, SETBACK_SECONDS, Setbacks


class Clock:
    """A clock that only the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_where_no_other_may_it_tries_again_soon_each_time() -> None:
    clock = Clock()
    setbacks = Setbacks(clock)
    assert not setbacks.holds(1, others_may=False)
    for _ in range(3):
        assert setbacks.note(1, others_may=False) == SETBACK_SECONDS
        clock.now += SETBACK_SECONDS - 1
        assert setbacks.holds(1, others_may=False)
        clock.now += 1
        assert not setbacks.holds(1, others_may=False)


def test_it_leaves_a_study_to_others_for_longer_after_each_error() -> None:
    setbacks = Setbacks(Clock())
    seconds = [setbacks.note(1, others_may=True) for _ in range(6)]
    assert seconds[:3] == [SETBACK_SECONDS, GROWTH * SETBACK_SECONDS, GROWTH**2 * SETBACK_SECONDS]
    assert seconds == sorted(seconds)
    assert seconds[-1] == MOST_SECONDS
    setbacks.over(1)
    assert not setbacks.holds(1, others_may=True)
    assert setbacks.note(1, others_may=True) == SETBACK_SECONDS


def test_once_the_others_are_gone_it_does_not_wait_longer_than_alone() -> None:
    clock = Clock()
    setbacks = Setbacks(clock)
    for _ in range(3):
        setbacks.note(1, others_may=True)
    clock.now += SETBACK_SECONDS
    assert setbacks.holds(1, others_may=True)
    assert not setbacks.holds(1, others_may=False)
    assert not setbacks.holds(2, others_may=True), "of another study nothing is known"


def test_errors_of_weeks_leave_it_alone_no_longer_than_at_most() -> None:
    setbacks = Setbacks(Clock())
    assert [setbacks.note(1, others_may=True) for _ in range(2_000)][-1] == MOST_SECONDS
    assert setbacks.holds(1, others_may=True)
