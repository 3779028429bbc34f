"""The model of learning curves: what it must get right, whatever the curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.arrays import Array
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


def _restless(count: int, noise: float) -> tuple[Array, list[dict[int, float]]]:
    """Return the ends of curves that jump in their first epochs, where no model follows them, and the curves."""
    rng = np.random.default_rng(4)
    steps = np.arange(1, EPOCHS + 1)
    clean = rng.uniform(0.5, 0.9, (count, 1)) - rng.uniform(0.2, 0.5, (count, 1)) / steps
    clean += 0.05 * rng.standard_normal((count, EPOCHS)) * (steps < EPOCHS / 5)
    seen = clean + noise * rng.standard_normal((count, EPOCHS))
    return clean[:, -1], [dict(zip(steps.tolist(), row.tolist(), strict=True)) for row in seen]


def test_what_curves_do_early_is_no_noise_of_their_ends() -> None:
    ends, curves = _restless(8, noise=0.0)
    found = CurveModel(curves, PLACES).predict_all(curves)
    assert np.array([one.mean for one in found]) == pytest.approx(ends, abs=0.001)
    assert max(one.deviation for one in found) < 0.005


def test_ends_of_noisy_curves_are_means_of_what_came_before() -> None:
    ends, curves = _restless(30, noise=0.02)
    found = CurveModel(curves, PLACES).predict_all(curves)
    errors = np.array([one.mean for one in found]) - ends
    deviation = float(np.median([one.deviation for one in found]))
    assert np.sqrt((errors**2).mean()) < 0.5 * 0.02
    assert 0.7 < np.sqrt((errors**2).mean()) / deviation < 1.3


def test_parallel_curves_are_carried_on_exactly() -> None:
    shape = {step: 0.6 - 0.5 / step for step in range(1, EPOCHS + 1)}
    curves = [{step: value + shift for step, value in shape.items()} for shift in np.linspace(0, 0.3, 40)]
    found = CurveModel(curves[1:], PLACES).predict(_cut(curves[0], 4))
    assert found.mean == pytest.approx(curves[0][EPOCHS], abs=0.02)


def _saturating(count: int, seed: int) -> Array:
    """Return accuracies that start at chance and rise at different times to different ends; a fifth never rises."""
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.1, 0.5, count) * (rng.random(count) > 0.2)
    time = 12 * np.exp(0.4 * rng.standard_normal(count))
    return np.asarray(0.25 + gain[:, None] * (1 - np.exp(-((np.arange(1, EPOCHS + 1) / time[:, None]) ** 1.5))))


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.02, 0.05])
def test_beliefs_are_calibrated_and_sharp(noise: float) -> None:
    """Of the poorer half, stopped at a third, by the true ends: intervals too wide fail as those too narrow."""
    scores, ratios = [], []
    for completed, studies in ((3, 10), (8, 5), (20, 3)):
        for seed in range(studies):
            truths = _saturating(2 * completed, 100 * completed + seed)
            values = truths + noise * np.random.default_rng(seed).standard_normal(truths.shape)
            cut = np.where(np.argsort(np.argsort(values[:, 12])) < completed, 13, EPOCHS)
            curves = [_numbered(row[:last].tolist()) for row, last in zip(values, cut, strict=True)]
            poorest = np.flatnonzero(cut < EPOCHS)
            found = CurveModel(curves, PLACES).predict_all([curves[place] for place in poorest])
            errors = np.array([end.mean for end in found]) - truths[poorest, -1]
            sds = np.array([end.sd * (end.freedom / (end.freedom - 2)) ** 0.5 for end in found])
            scores += (np.abs(errors) / sds).tolist()
            ratios.append((np.mean(sds**2), np.mean(errors**2), np.var(truths[:, -1])))
    told, actual, spread = np.sqrt(np.mean(ratios, axis=0))
    assert 0.55 < np.mean(np.array(scores) < 1) < 0.92
    assert np.mean(np.array(scores) < 1.96) > 0.85
    assert 0.7 < told / actual < 1.8
    assert actual < 0.6 * spread


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


STOPPED = (
    [0.2125, 0.2625, 0.2625, 0.225],
    [0.25, 0.2375, 0.3, 0.25],
    [0.25, 0.2875, 0.2875, 0.2375],
    [0.25, 0.275, 0.2625, 0.25],
    [0.25, 0.25, 0.225, 0.2625],
)
COMPLETED = (
    [0.2375, 0.3125, 0.3625, 0.3125, 0.5, 0.5375, 0.5625, 0.6375, 0.6375, 0.6625, 0.65, 0.6375],
    [0.25, 0.2625, 0.3, 0.45, 0.45, 0.55, 0.5625, 0.65, 0.6125, 0.625, 0.6, 0.6],
    [0.275, 0.25, 0.3875, 0.3625, 0.35, 0.4625, 0.4625, 0.5, 0.65, 0.6625, 0.7125, 0.7125],
    [0.25, 0.2375, 0.1875, 0.25, 0.2625, 0.2, 0.2625, 0.225, 0.2875, 0.275, 0.3, 0.3125],
)


def _numbered(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values, start=1))


def test_trials_stopped_at_the_level_of_guessing_teach_something() -> None:
    """Real curves of 80 clips: the belief about what was stopped is narrower than the spread of all ends."""
    curves = [_numbered(values) for values in (*COMPLETED, *STOPPED)]
    spread = float(np.std([values[-1] for values in COMPLETED]))
    for found in CurveModel(curves, rungs(1, 12)).predict_all([_numbered(values) for values in STOPPED]):
        assert found.sd < spread
        assert 0.2 < found.mean < 0.5


def test_the_clips_of_an_accuracy_are_a_sample() -> None:
    """A curve that repeats the same share of 80 clips has no scatter, and still the error of 80 clips."""
    flat = [dict.fromkeys(range(1, 13), hits / 80) for hits in (19, 24, 37, 41, 47, 55)]
    places = rungs(1, 12)
    over_all = CurveModel(flat, places).predict(flat[3])
    alone = CurveModel(flat, places, on_these_clips=True).predict(flat[3])
    assert over_all.sd == pytest.approx((41 / 80 * 39 / 80 / 80) ** 0.5, rel=0.1)
    assert alone.sd < 0.1 * over_all.sd


def test_what_scatters_early_takes_nothing_off_the_error_of_the_clips() -> None:
    """Shares of 80 clips that jump in the first epochs and then stay: each end has the whole error of 80 clips."""
    rng = np.random.default_rng(5)
    hits = [19, 24, 37, 41, 47, 55]
    curves = [{step: (n + (rng.integers(-8, 9) if step < 6 else 0)) / 80 for step in range(1, 25)} for n in hits]
    for n, found in zip(hits, CurveModel(curves, rungs(1, 24)).predict_all(curves), strict=True):
        assert found.deviation == pytest.approx((n / 80 * (1 - n / 80) / 80) ** 0.5, rel=0.1)


def test_a_lead_counts_with_the_errors_of_both() -> None:
    from scipy.stats import norm

    one, other = Prediction(mean=0.5, sd=0.03, freedom=1e6), Prediction(mean=0.4, sd=0.04, freedom=1e6)
    assert one.probability_beyond(other) == pytest.approx(norm.cdf(2.0), abs=1e-4)


def test_a_diverged_loss_of_any_finite_size_is_survived() -> None:
    curves = [{1: -2.0, 2: -1.5, 3: -1.0, 4: -0.9}, {1: -2.2, 2: -1e200}, {1: -2.1, 2: -1e300}]
    for prediction in CurveModel(curves, rungs(1, 4)).predict_all(curves):
        assert not np.isnan([prediction.mean, prediction.sd]).any()
