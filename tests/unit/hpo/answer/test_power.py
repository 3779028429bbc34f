"""Which differences so many clips can show."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.answer.power import few_clips, smallest_difference


def test_the_worse_of_two_looks_better_once_in_ten_times_at_this_difference() -> None:
    """Clips that both classify alike, with a probability of 0.3, and otherwise independently."""
    rng, clips, runs = np.random.default_rng(0), 400, 4000
    difference = smallest_difference(clips)
    drawn = [rng.random((runs, clips)) for _ in range(2)]
    alike = rng.random((runs, clips)) < 0.3
    drawn[1] = np.where(alike, drawn[0], drawn[1])
    shares = [(values < share).mean(axis=1) for values, share in zip(drawn, (0.5, 0.5 + difference), strict=True)]
    assert (shares[0] > shares[1]).mean() == pytest.approx(0.1, abs=0.015)


def test_with_16_clips_differences_below_a_fifth_cannot_be_seen() -> None:
    assert smallest_difference(16) == pytest.approx(0.19, abs=0.005)
    sentence = few_clips("val_top1", 16, called="clips")
    assert sentence is not None
    assert sentence.startswith("with 16 validation clips, differences of val_top1 below 0.19 cannot be seen")
    assert "k-fold" in sentence
    assert str(few_clips("val_top1", 16, called="images")).startswith("with 16 validation images, ")


def test_four_times_the_clips_show_half_the_difference() -> None:
    assert smallest_difference(40) == pytest.approx(2 * smallest_difference(160))
    assert few_clips("val_top1", 1000, called="clips") is None
