"""How many suggestions one fit gives: one where trials take long, a share of the results where they do not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hpo.service.pace import MOST, SHARE, suggestions_of_a_fit
from hpo.trial import TrialRecord, TrialState

from ..records import record_of

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _ended(count: int, seconds: float) -> list[TrialRecord]:
    finished = BEGIN + timedelta(seconds=seconds)
    return [
        replace(record_of(id, TrialState.COMPLETED, params={}, metrics={}), started_at=BEGIN, finished_at=finished)
        for id in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "seconds", "workers", "fit_seconds", "expected"),
    [
        (40, 600.0, 2, 4.0, 1),  # a training: each suggestion knows all that is known
        (40, 3.0, 1, 2.0, 1),
        (40, 1.0, 1, 2.0, 2),  # two trials end while one is planned
        (40, 1.0, 4, 1.0, 4),
        (40, 0.01, 2, 1.0, 40 // SHARE + 1),  # never more than a share of the results
        (400, 0.01, 2, 1.0, MOST),
        (3, 0.01, 2, 1.0, 1),  # how long trials take is not known yet
        (40, 0.0, 0, 1.0, 40 // SHARE + 1),
    ],
)
def test_as_many_as_trials_end_in_the_time_of_a_fit(
    count: int, seconds: float, workers: int, fit_seconds: float, expected: int
) -> None:
    assert suggestions_of_a_fit(_ended(count, seconds), workers=workers, fit_seconds=fit_seconds) == expected


def test_failures_that_are_over_at_once_make_no_trial_cheap() -> None:
    failed = [replace(one, id=one.id + 100, state=TrialState.FAILED) for one in _ended(40, 0.5)]
    trained = _ended(20, 600.0)
    assert suggestions_of_a_fit([*trained, *failed], workers=2, fit_seconds=2.0) == 1
    assert suggestions_of_a_fit(failed, workers=2, fit_seconds=2.0) == 1


def test_trials_without_times_and_earlier_ones_do_not_count() -> None:
    untimed = [replace(one, started_at=None) for one in _ended(40, 0.01)]
    assert suggestions_of_a_fit(untimed, workers=2, fit_seconds=1.0) == 1
    slow_now = [*_ended(20, 0.01), *(replace(one, id=one.id + 100) for one in _ended(16, 60.0))]
    assert suggestions_of_a_fit(slow_now, workers=1, fit_seconds=1.0) == 1
