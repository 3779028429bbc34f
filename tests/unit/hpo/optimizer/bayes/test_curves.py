"""Predicting the final value from a partial learning curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpo.optimizer.bayes.curves import Outcome, outcomes
from hpo.optimizer.history import History
from hpo.trial import FailureKind, TrialRecord, TrialState

from ...records import record_of, spec_with

EPOCHS = 9
SHAPE = np.array([0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6])


def _completed(id: int, curve: np.ndarray[Any, Any]) -> TrialRecord:
    values = [float(value) for value in curve]
    return record_of(id, TrialState.COMPLETED, values=values, metrics={"val_top1": values[-1]})


def _stopped(id: int, curve: np.ndarray[Any, Any], epochs: int) -> TrialRecord:
    return record_of(id, TrialState.STOPPED, values=[float(value) for value in curve[:epochs]])


def _of(records: list[TrialRecord], **sections: Any) -> list[Outcome]:
    return outcomes(History(spec_with(**sections), records))


def _end(outcome: Outcome) -> tuple[float, float]:
    return outcome.values["val_top1"], outcome.sds["val_top1"]


def test_which_trials_get_a_predicted_end() -> None:
    found = _of(
        [
            *(_completed(id, SHAPE + 0.02 * id) for id in range(4)),
            _stopped(4, SHAPE, 3),
            record_of(5, TrialState.RUNNING, values=SHAPE[:6].tolist()),
            record_of(6, TrialState.RUNNING),
            record_of(7, TrialState.FAILED, failure_kind=FailureKind.OOM),
        ]
    )
    ends, sds = zip(*(_end(outcome) for outcome in found), strict=True)
    assert ends[:4] == pytest.approx((0.6, 0.62, 0.64, 0.66), abs=0.002)
    assert all(abs(end - 0.6) < 2 * sd for end, sd in zip(ends[4:6], sds[4:6], strict=True))
    assert ends[6] == pytest.approx(0.6)  # a failure counts as the worst
    assert sds[4] > sds[5] > max(sds[:4]) > 0
    assert sds[6] == 0


def test_the_noise_of_the_spec_adds_to_the_uncertainty_of_a_predicted_end() -> None:
    records = [*(_completed(id, SHAPE + 0.02 * id) for id in range(4)), _stopped(4, SHAPE, 3)]
    noisy = [_end(outcome)[1] for outcome in _of(records, objectives=[{"metric": "val_top1", "noise_sd": 0.03}])]
    quiet = [_end(outcome)[1] for outcome in _of(records)]
    assert noisy == pytest.approx([(sd**2 + 0.03**2) ** 0.5 for sd in quiet])


def test_the_end_of_a_noisy_completed_trial_is_smoothed() -> None:
    rng = np.random.default_rng(0)
    found = _of([_completed(id, 0.5 + 0.02 * (id % 4) + 0.03 * rng.standard_normal(EPOCHS)) for id in range(40)])
    errors = [_end(outcome)[0] - 0.5 - 0.02 * (id % 4) for id, outcome in enumerate(found)]
    rmse = float(np.sqrt(np.mean(np.square(errors))))
    assert rmse < 0.02
    assert 0.7 * rmse < np.mean([_end(outcome)[1] for outcome in found]) < 1.4 * rmse


def test_a_completed_trial_without_a_curve_keeps_its_value() -> None:
    found = _of([record_of(id, TrialState.COMPLETED, metrics={"val_top1": 0.5 + 0.1 * id}) for id in range(3)])
    assert [_end(outcome) for outcome in found] == [(0.5 + 0.1 * id, 0.0) for id in range(3)]


def test_parallel_curves_predict_a_parallel_end() -> None:
    completed = [_completed(id, SHAPE + 0.01 * id) for id in range(20)]
    *_, found = _of([*completed, _stopped(20, SHAPE + 0.085, 4)])
    end, sd = _end(found)
    assert end == pytest.approx(0.685, abs=0.01)
    assert 0 < sd < 0.05


def test_stopped_trials_train_the_model_of_curves() -> None:
    """Low curves that were stopped show that low curves stay low, which the completed ones say little about."""
    rng = np.random.default_rng(0)
    high = [_completed(id, SHAPE + 0.3 + 0.02 * rng.standard_normal()) for id in range(10)]
    low = [_stopped(10 + id, 0.1 + 0.02 * rng.standard_normal() + 0 * SHAPE, 4) for id in range(10)]
    last = _stopped(20, 0.1 + 0 * SHAPE, 1)
    alone, together = _of([*high, last])[-1], _of([*high, *low, last])[-1]
    assert _end(together)[0] < _end(alone)[0]
    assert _end(together)[1] < 0.7 * _end(alone)[1]


def test_the_direction_of_the_objective_does_not_matter() -> None:
    records = [*(_completed(id, SHAPE + 0.03 * id**1.5) for id in range(6)), _stopped(6, SHAPE, 3)]
    mirrored = [
        record_of(
            record.id,
            record.state,
            values=[-row["val_top1"] for row in record.curve.values()],
            metrics={"val_top1": -record.metrics["val_top1"]} if record.metrics else None,
        )
        for record in records
    ]
    end, sd = _end(_of(records)[-1])
    minimized = _of(mirrored, objectives=[{"metric": "val_top1", "direction": "minimize"}])
    assert _end(minimized[-1]) == pytest.approx((-end, sd))


def test_a_metric_that_is_only_constrained_is_not_assumed_to_improve() -> None:
    curve = {
        step: {"val_top1": float(value), "parameters_millions": 30.0} for step, value in enumerate(SHAPE[:2], start=1)
    }
    (found,) = _of([record_of(0, TrialState.STOPPED, curve=curve)], constraints=["parameters_millions <= 40"])
    assert found.values["parameters_millions"] == pytest.approx(30.0)
    assert found.values["val_top1"] > 0.2


def test_a_metric_without_a_curve_keeps_its_value() -> None:
    record = record_of(0, TrialState.STOPPED, values=[0.1, 0.2], peak_memory_bytes=8 * 2**30)
    (found,) = _of([record], constraints=["peak_memory_gib <= 20"])
    assert (found.values["peak_memory_gib"], found.sds["peak_memory_gib"]) == (8.0, 0.0)


def test_ends_stay_as_they_were_between_the_counts_at_which_models_are_chosen() -> None:
    rng = np.random.default_rng(1)
    records = [
        _completed(id, SHAPE + rng.random()) if id % 2 else _stopped(id, SHAPE + rng.random(), 1 + id % 5)
        for id in range(44)
    ]
    counts = [[_end(outcome) for outcome in _of(records[:count])] for count in (40, 41, 42)]
    assert counts[1][:40] == counts[0]
    assert counts[2][:40] != counts[0]
