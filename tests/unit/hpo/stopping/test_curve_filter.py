"""The filter over learning curves, against the joint normal distribution it stands for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hpo.arrays import Array
from hpo.stopping.curve_filter import _RESOLUTION, CurveFilter, Dynamics, Readings, Trend

TIMES = np.log([1.0, 2.0, 3.5, 6.0, 10.0])
DRIFTS = (0.4, 0.5, 0.1, -0.2, 0.05)
"""What is added to the level at first, then to the slope from bin to bin."""
HYPER = {
    "noise": 0.1,
    "first_level": 0.3,
    "first_slope": 0.5,
    "decay": 0.7,
    "drift": 0.5,
    "takeoff": 0.2,
    "roughness": 0.05,
}


def _dynamics(**changed: float) -> Dynamics:
    values = {**HYPER, "variation": 0.0, "forgetting": 1.0, **changed}
    return Dynamics(**{name: np.array([[value]]) for name, value in values.items()})


def _trends(decay: float) -> list[Trend]:
    """Return coefficients that are known for certain."""
    found = [Trend(mean=np.array([[DRIFTS[0]]]), covariance=np.zeros((1, 1, 1)))]
    for place, width in enumerate(np.diff(TIMES), start=1):
        kept = np.exp(-decay * width) if place > 1 else 0.0
        found.append(Trend(mean=np.array([[DRIFTS[place], kept, 0.0]]), covariance=np.zeros((1, 3, 3))))
    return found


def _joint() -> tuple[Array, Array, Array, Array]:
    """Return means of levels and slopes, and what each independent surprise (columns) adds to them."""
    surprises = 1 + 2 * (len(TIMES) - 1)
    levels, slopes = np.zeros((len(TIMES), surprises)), np.zeros((len(TIMES), surprises))
    means, risings = np.zeros(len(TIMES)), np.zeros(len(TIMES))
    levels[0, 0], means[0] = HYPER["first_level"], DRIFTS[0]
    for place, width in enumerate(np.diff(TIMES), start=1):
        kept = np.exp(-HYPER["decay"] * width) if place > 1 else 0.0
        slopes[place] = kept * slopes[place - 1]
        slopes[place, 2 * place - 1] = HYPER["first_slope"] if place == 1 else HYPER["takeoff"] * width**0.5
        risings[place] = kept * risings[place - 1] + DRIFTS[place]
        levels[place] = levels[place - 1] + width / 2 * (slopes[place - 1] + slopes[place])
        levels[place, 2 * place] = HYPER["roughness"] * width**0.5
        means[place] = means[place - 1] + width / 2 * (risings[place - 1] + risings[place])
    return means, risings, levels, slopes


@pytest.mark.parametrize("seen", [[0], [0, 1, 2], [0, 2], [1, 3], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("is_late_known", [False, True], ids=["one noise", "late noise known"])
def test_with_known_hyperparameters_it_is_conditioning_of_normal_variables(
    seen: Sequence[int], is_late_known: bool
) -> None:
    rng = np.random.default_rng(0)
    counts, offsets, values = np.zeros((1, 5)), np.zeros((1, 5)), np.zeros((1, 5))
    counts[0, seen] = rng.integers(1, 4, len(seen))
    offsets[0, seen] = rng.uniform(-0.1, 0.1, len(seen))
    values[0, seen] = rng.normal(0.5, 0.3, len(seen))
    means, risings, levels, slopes = _joint()
    loads = levels[seen] + offsets[0, seen][:, None] * slopes[seen]
    noise = np.array([HYPER["noise"] ** 2] * 3 + ([0.002, 0.3] if is_late_known else [HYPER["noise"] ** 2] * 2))
    covariance = loads @ loads.T + np.diag(noise[seen] / counts[0, seen] + _RESOLUTION**2)
    gain = np.linalg.solve(covariance, loads @ levels[-1])
    residual = values[0, seen] - means[seen] - offsets[0, seen] * risings[seen]
    mean, variance = means[-1] + gain @ residual, levels[-1] @ levels[-1] - gain @ loads @ levels[-1]

    known = np.where(np.arange(5) < 3, np.nan, noise)[None] if is_late_known else None
    readings = Readings(values=values, offsets=offsets, counts=counts, noise=known)
    found = CurveFilter(_dynamics(), TIMES, improves=True).ends(readings, _trends(HYPER["decay"]))
    assert (found[0].item(), found[1].item()) == pytest.approx((mean, variance))


def test_known_noise_stays_with_its_trial_when_trials_are_ordered() -> None:
    rng = np.random.default_rng(3)
    counts = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=float)
    noise = np.array([[0.001] * 5, [0.1] * 5, [1.0] * 5])
    readings = Readings(values=rng.normal(0.5, 0.3, (3, 5)), offsets=np.zeros((3, 5)), counts=counts, noise=noise)
    turned = readings.take(np.array([2, 0, 1]))
    model = CurveFilter(_dynamics(), TIMES, improves=True)
    evidence, trends = model.learn(readings)
    assert model.learn(turned)[0] == pytest.approx(evidence)
    assert model.ends(turned, trends)[1][0] == pytest.approx(model.ends(readings, trends)[1][0][[2, 0, 1]])


def test_deviations_are_in_proportion_to_the_slope() -> None:
    """The variance that differing decay adds to the end is quadrupled by twice the slope; a flat curve has none."""
    quiet = {"first_level": 0.0, "first_slope": 0.0, "takeoff": 0.0, "roughness": 0.0, "forgetting": 0.5}
    dynamics, nothing = _dynamics(**quiet, variation=0.4), np.zeros((1, 5))
    readings = Readings(values=nothing, offsets=nothing, counts=nothing)
    added = []
    for slope in (0.0, 0.3, 0.6):
        trends = _trends(HYPER["decay"])
        for trend in trends[1:]:
            trend.mean[:, 0] = 0.0
        trends[1].mean[:, 0] = slope
        added.append(CurveFilter(dynamics, TIMES, improves=True).ends(readings, trends)[1].item())
    assert added[0] == 0
    assert added[1] > 0
    assert added[2] == pytest.approx(4 * added[1])


def test_doubt_about_the_shared_coefficients_counts() -> None:
    nothing = np.zeros((1, 5))
    readings = Readings(values=nothing, offsets=nothing, counts=nothing)
    trends = _trends(HYPER["decay"])
    certain = CurveFilter(_dynamics(), TIMES, improves=True).ends(readings, trends)[1].item()
    trends[0].covariance[:] = 0.09
    doubtful = CurveFilter(_dynamics(), TIMES, improves=True).ends(readings, trends)[1].item()
    assert doubtful == pytest.approx(certain + 0.09)


def test_what_all_curves_share_is_learned_from_many() -> None:
    rng = np.random.default_rng(1)
    means, _, levels, _ = _joint()
    curves = means + rng.standard_normal((4000, levels.shape[1])) @ levels.T + 0.1 * rng.standard_normal((4000, 5))
    readings = Readings(values=curves, offsets=np.zeros_like(curves), counts=np.ones_like(curves))
    _, trends = CurveFilter(_dynamics(), TIMES, improves=True).learn(readings)
    assert trends[0].mean[0, 0] == pytest.approx(DRIFTS[0], abs=0.03)
    for place, expected in enumerate(_trends(HYPER["decay"])):
        assert trends[place].mean[0] == pytest.approx(expected.mean[0], abs=0.1)


def test_the_evidence_prefers_the_hyperparameters_that_made_the_curves() -> None:
    rng = np.random.default_rng(2)
    means, _, levels, _ = _joint()
    curves = means + rng.standard_normal((300, levels.shape[1])) @ levels.T + 0.1 * rng.standard_normal((300, 5))
    readings = Readings(values=curves, offsets=np.zeros_like(curves), counts=np.ones_like(curves))

    def evidence(**changed: float) -> float:
        return CurveFilter(_dynamics(**changed), TIMES, improves=True).learn(readings)[0].item()

    for name, value in HYPER.items():
        if name not in ("roughness", "decay", "drift"):
            assert evidence() > max(evidence(**{name: value / 3}), evidence(**{name: 3 * value})), name
