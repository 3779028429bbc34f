"""What partial curves say of the end."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.optimizer.bayes.curves import carried, outcomes
from hpo.optimizer.history import History
from hpo.trial import FailureKind, TrialState

from ...records import record_of, spec_with


def test_parallel_curves_are_carried_exactly_where_they_go() -> None:
    early = [0.1, 0.2, 0.4, 0.5]
    end, sd = carried(0.3, early, [value + 0.2 for value in early])
    assert end == pytest.approx(0.5)
    assert 0 < sd < 0.1


def test_curves_that_cross_leave_doubt_and_those_that_spread_a_slope() -> None:
    rng = np.random.default_rng(0)
    early = rng.random(60)
    end, sd = carried(0.9, early.tolist(), (0.5 + 0.2 * rng.standard_normal(60)).tolist())
    assert end == pytest.approx(0.5, abs=0.15)
    assert sd == pytest.approx(0.2, rel=0.3)
    slope, _ = carried(0.9, early.tolist(), (1.5 * early).tolist())
    assert slope == pytest.approx(1.35, abs=0.03)


def test_without_completed_curves_the_value_stands() -> None:
    assert carried(0.3, [], []) == (0.3, 0.0)


def test_units_do_not_matter() -> None:
    early, late = [0.1, 0.25, 0.4], [0.3, 0.35, 0.7]
    end, sd = carried(0.2, early, late)
    scaled = carried(200.0, [1000 * x for x in early], [1000 * y for y in late])
    assert scaled == (pytest.approx(1000 * end), pytest.approx(1000 * sd))


def test_who_is_carried() -> None:
    curve = [0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    completed = [
        record_of(
            id,
            TrialState.COMPLETED,
            values=[value + 0.02 * id for value in curve],
            metrics={"val_top1": 0.6 + 0.02 * id},
        )
        for id in range(4)
    ]
    history = History(
        spec_with(),
        [
            *completed,
            record_of(4, TrialState.STOPPED, values=curve[:3]),
            record_of(5, TrialState.RUNNING, values=curve[:6]),
            record_of(6, TrialState.RUNNING),
            record_of(7, TrialState.FAILED, failure_kind=FailureKind.OOM),
        ],
    )
    found = outcomes(history)
    assert [outcome.values["val_top1"] for outcome in found] == pytest.approx([0.6, 0.62, 0.64, 0.66, 0.6, 0.6, 0.6])
    sds = [outcome.sds["val_top1"] for outcome in found]
    assert sds[:4] == [0, 0, 0, 0]
    assert sds[4] > sds[5] > 0
    assert sds[6] == 0
    assert [outcome.is_pending for outcome in found] == [False] * 5 + [True, False]
