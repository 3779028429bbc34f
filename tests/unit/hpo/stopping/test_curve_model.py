"""The model of learning curves: what it must get right, whatever the curves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.stopping.curve_model import Curve, CurveModel, Prediction, rungs

EPOCHS = 40
PLACES = rungs(1, EPOCHS)


def _family(count: int, seed: int, noise: float = 0.0) -> list[dict[int, float]]:
    """Return power laws of different ends, heights and speeds, which cross."""
    rng = np.random.default_rng(seed)
    steps = np.arange(1, EPOCHS + 1)
    end, height, speed = rng.uniform(0.5, 0.9, count), rng.uniform(0.1, 0.5, count), rng.uniform(0.3, 1.2, count)
    values = end[:, None] - height[:, None] * steps[None] ** -speed[:, None] + noise * rng.normal(size=(count, EPOCHS))
    return [dict(zip(steps.tolist(), row.tolist(), strict=True)) for row in values]


def _cut(curve: Curve, epochs: int) -> dict[int, float]:
    return {step: value for step, value in curve.items() if step <= epochs}


@given(first=st.integers(1, 50), more=st.integers(0, 500))
def test_rungs_run_from_the_first_to_the_last_epoch(first: int, more: int) -> None:
    places = rungs(first, first + more)
    assert (places[0], places[-1]) == (first, first + more)
    assert all(a < b for a, b in pairwise(places))
    assert all(b <= max(a + 1, 2 * a) for a, b in pairwise(places))


def test_without_noise_a_finished_curve_is_predicted_as_its_own_last_value() -> None:
    curves = _family(6, 0)
    spread = float(np.std([curve[EPOCHS] for curve in curves]))
    found = CurveModel(curves[1:], PLACES).predict(curves[0])
    assert found.mean == pytest.approx(curves[0][EPOCHS], abs=0.02 * spread)
    assert found.sd < 0.05 * spread


def test_parallel_curves_are_carried_on_exactly() -> None:
    shape = {step: 0.6 - 0.5 / step for step in range(1, EPOCHS + 1)}
    curves = [{step: value + shift for step, value in shape.items()} for shift in np.linspace(0, 0.3, 40)]
    found = CurveModel(curves[1:], PLACES).predict(_cut(curves[0], 4))
    assert found.mean == pytest.approx(curves[0][EPOCHS], abs=0.02)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.02, 0.05])
@pytest.mark.parametrize("completed", [3, 8, 20])
def test_beliefs_are_calibrated_and_sharp(completed: int, noise: float) -> None:
    """Intervals that are much too wide fail as those that are too narrow: of stopped trials, by the true ends."""
    errors, sds, spreads = [], [], []
    for seed in range(40 // completed):
        truths, curves = _family(2 * completed, seed), _family(2 * completed, seed, noise)
        poorest = sorted(range(2 * completed), key=lambda place: curves[place][10])[:completed]
        shown = [_cut(curve, 10) if place in poorest else curve for place, curve in enumerate(curves)]
        for place, found in zip(
            poorest, CurveModel(shown, PLACES).predict_all([shown[p] for p in poorest]), strict=True
        ):
            errors.append(found.mean - truths[place][EPOCHS])
            sds.append(found.sd * (found.freedom / (found.freedom - 2)) ** 0.5)
        spreads.append(np.std([curve[EPOCHS] for curve in truths]))
    rmse = float(np.sqrt(np.mean(np.square(errors))))
    assert np.mean(np.abs(errors) < 2 * np.array(sds)) > 0.85
    assert 0.6 < np.sqrt(np.mean(np.square(sds))) / rmse < 3
    assert rmse < 0.6 * np.mean(spreads)


def test_stopped_curves_teach() -> None:
    curves = _family(40, 3)
    few = CurveModel(curves[:2], PLACES)
    more = CurveModel([*curves[:2], *(_cut(curve, 9) for curve in curves[2:30])], PLACES)
    errors = {
        model: np.mean([abs(model.predict(_cut(curve, 2)).mean - curve[EPOCHS]) for curve in curves[30:]])
        for model in (few, more)
    }
    assert errors[more] < errors[few]


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_the_unit_of_the_metric_does_not_matter(scale: float, shift: float, seed: int) -> None:
    curves = _family(8, seed)
    other = [{step: scale * value + shift for step, value in curve.items()} for curve in curves]
    chance = CurveModel(curves[1:], PLACES).predict(_cut(curves[0], 4)).probability_above(0.7)
    again = CurveModel(other[1:], PLACES).predict(_cut(other[0], 4)).probability_above(scale * 0.7 + shift)
    assert again == pytest.approx(chance, abs=1e-3)


def test_the_order_of_the_curves_does_not_matter() -> None:
    curves = _family(8, 1)
    forth, back = CurveModel(curves[1:], PLACES), CurveModel(curves[:0:-1], PLACES)
    assert forth.predict(_cut(curves[0], 4)).mean == pytest.approx(back.predict(_cut(curves[0], 4)).mean)


def test_without_any_curve_nothing_is_certain() -> None:
    found = CurveModel([], PLACES).predict({1: 0.3})
    assert 0.05 < found.probability_above(0.5) < 0.95


def test_steps_that_were_lost_are_bridged() -> None:
    curves = _family(20, 2)
    gap = {step: value for step, value in curves[0].items() if step in (1, 2, 8, 12)}
    found = CurveModel(curves[1:], PLACES).predict(gap)
    assert found.mean == pytest.approx(curves[0][EPOCHS], abs=0.1)


def test_a_curve_before_the_first_rung_is_refused() -> None:
    with pytest.raises(ValueError, match="first rung"):
        CurveModel([], rungs(3, EPOCHS)).predict({1: 0.5, 2: 0.6})


def test_constant_curves_make_no_trouble() -> None:
    flat = dict.fromkeys(range(1, EPOCHS + 1), 0.5)
    found = CurveModel([flat] * 5, PLACES).predict(_cut(flat, 5))
    assert found.mean == pytest.approx(0.5, abs=0.2)


def test_probability_is_that_of_student_t() -> None:
    from scipy.stats import t

    found = Prediction(mean=0.4, sd=0.1, freedom=5.0)
    assert found.probability_above(0.55) == pytest.approx(t.sf(1.5, 5))


def test_curves_are_predicted_together_as_one_by_one() -> None:
    curves = _family(30, 4, noise=0.01)
    model = CurveModel([*curves[:8], *(_cut(curve, 7) for curve in curves[8:20])], PLACES)
    partial = [_cut(curve, 1 + place) for place, curve in enumerate(curves[20:])]
    for together, curve in zip(model.predict_all(partial), partial, strict=True):
        alone = model.predict(curve)
        assert (together.mean, together.sd) == pytest.approx((alone.mean, alone.sd))
        assert together.freedom == pytest.approx(alone.freedom)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_further_the_end_the_wider_the_belief(noise: float) -> None:
    curves = _family(30, 5, noise)
    model = CurveModel(curves[10:], PLACES)
    sds = np.array([[model.predict(_cut(curve, epochs)).sd for epochs in PLACES] for curve in curves[:10]])
    assert (np.diff(sds.mean(axis=0)) < 0).all()
