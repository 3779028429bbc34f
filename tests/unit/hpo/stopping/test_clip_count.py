"""How many clips are behind an accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.stopping.clip_count import clip_count, sampling_variance


@pytest.mark.parametrize("clips", [28, 48, 80, 331])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_number_of_clips_is_found_from_their_shares(clips: int, sign: int) -> None:
    hits = np.random.default_rng(0).integers(0, clips + 1, 40)
    assert clip_count((sign * hits / clips).tolist()) == clips


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).random(40),
        np.random.default_rng(1).random(40).round(2),
        np.random.default_rng(1).random(40).round(3),
        np.arange(40) * 1.5,
        np.full(40, 13 / 28),
        np.arange(6) / 28,
    ],
    ids=["reals", "two digits", "three digits", "above one", "constant", "few"],
)
def test_other_numbers_are_shares_of_none(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    assert clip_count(values.tolist()) is None


def test_the_variance_is_binomial_and_never_zero() -> None:
    assert sampling_variance(0.5, 100) == pytest.approx(0.0025)
    assert sampling_variance(0.3, 10_000) == pytest.approx(0.3 * 0.7 / 10_000, rel=1e-3)
    assert sampling_variance(1.0, 48) > 0
