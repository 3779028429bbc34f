"""The noise of late epochs: right whatever the curves below it, and careful where little shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.arrays import Array
from hpo.stopping.scatter import LateNoise, is_late

EPOCHS = 60


def _rising(trials: int, noise: float, seed: int = 0) -> Array:
    """Return curves that rise in log epochs at different speeds, with jumps early in training."""
    rng = np.random.default_rng(seed)
    times = np.log(np.arange(1, EPOCHS + 1))
    early = np.arange(1, EPOCHS + 1) < EPOCHS / 3
    clean = rng.uniform(0, 0.3, (trials, 1)) * times + 0.3 * rng.standard_normal((trials, EPOCHS)) * early
    return np.asarray(clean + noise * rng.standard_normal((trials, EPOCHS)))


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_noise_is_found_whatever_early_epochs_do(noise: float) -> None:
    found = LateNoise.learn(_rising(200, noise), of_filter=4 * noise**2)
    assert found.of_all == pytest.approx(noise**2, rel=0.05)


@pytest.mark.parametrize("every", [2, 3])
def test_noise_is_found_where_only_some_epochs_are_validated(every: int) -> None:
    curves = _rising(400, 0.1)
    curves[:, [epoch for epoch in range(EPOCHS) if (epoch + 1) % every]] = np.nan
    assert LateNoise.learn(curves, of_filter=0.04).of_all == pytest.approx(0.01, rel=0.08)


def test_a_quiet_curve_counts_as_quiet_beside_noisy_ones_and_conversely() -> None:
    noisy, quiet = _rising(10, 0.1), _rising(10, 0.01, seed=1)
    known = LateNoise.learn(np.concatenate([noisy, quiet]), of_filter=0.01)
    assert known.variances(quiet).max() < 0.6 * known.of_all < known.variances(noisy).mean()


def test_the_noise_of_the_filter_is_the_most_and_counts_while_nothing_late_is_seen() -> None:
    assert LateNoise.learn(_rising(50, 0.2), of_filter=0.01).of_all == 0.01
    early = _rising(50, 0.2)
    early[:, EPOCHS // 2 :] = np.nan
    known = LateNoise.learn(early, of_filter=0.02)
    assert known.of_all == pytest.approx(0.02)
    assert known.variances(early) == pytest.approx(np.full(50, 0.02))


@given(slope=st.floats(-1, 1), shift=st.floats(-1, 1), seen=st.sets(st.integers(0, EPOCHS - 1), max_size=EPOCHS))
def test_a_straight_line_has_no_noise_whichever_epochs_are_seen(slope: float, shift: float, seen: set[int]) -> None:
    curve = np.full((1, EPOCHS), np.nan)
    places = sorted(seen)
    curve[0, places] = shift + slope * np.array(places)
    assert LateNoise(of_all=0.0).variances(curve).item() < 1e-20


@given(epochs=st.integers(1, 4))
def test_of_a_handful_of_epochs_nothing_is_known(epochs: int) -> None:
    curves = np.random.default_rng(0).standard_normal((3, epochs))
    assert LateNoise.learn(curves, of_filter=0.5).of_all == pytest.approx(0.5)


def test_the_later_half_is_late() -> None:
    assert is_late(np.array([1, 6, 6.5, 12]), 12).tolist() == [False, False, True, True]
