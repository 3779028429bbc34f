"""The interval of a share over grouped videos: against Wilson's, the design effect of copies, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from workers.evaluation.interval import grouped_interval


@pytest.mark.parametrize("right", range(9))
def test_videos_of_sources_of_their_own_have_wilsons_interval(right: int) -> None:
    found = grouped_interval(np.arange(8) < right, [str(number) for number in range(8)])
    wilson = binomtest(right, 8).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=1e-12)
    assert found.effective == 8
    assert (found.low == 0) == (right == 0)
    assert (found.high == 1) == (right == 8)


def test_copies_of_a_video_say_no_more_than_one() -> None:
    """Of G sources whose m videos agree, the mean varies as that of G videos: a design effect of m G / (G - 1)."""
    sources, copies = 20, 6
    right = np.arange(sources) % 4 != 0
    found = grouped_interval(right.repeat(copies), [str(n) for n in range(sources) for _ in range(copies)])
    few = (t.ppf(0.975, sources * copies - 1) / t.ppf(0.975, sources - 1)) ** 2
    assert found.effective == pytest.approx((sources - 1) * few)


def test_many_videos_of_three_actors_are_far_from_as_many() -> None:
    actors = ["daria"] * 15 + ["ido"] * 15 + ["moshe"] * 14
    alike = grouped_interval(np.arange(44) != 0, actors)
    assert alike.effective < 12
    assert alike.low < 0.75 < binomtest(43, 44).proportion_ci(method="wilson").low
    perfect = grouped_interval(np.ones(44, bool), actors)
    assert alike.low - 0.05 < perfect.low < 0.8, "one mistake more or less does not turn everything round"
    assert perfect.high == 1
    assert grouped_interval(np.arange(44) != 0, ["daria"] * 44).effective == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_interval_holds_the_share_and_is_never_narrower_than_without_groups(videos: list[tuple[bool, int]]) -> None:
    right = np.array([one for one, _ in videos])
    found = grouped_interval(right, [str(group) for _, group in videos])
    alone = grouped_interval(right, [str(number) for number in range(len(videos))])
    assert 0 <= found.low <= right.mean() <= found.high <= 1
    assert 1 <= found.effective <= len(videos)
    assert found.high - found.low >= alone.high - alone.low - 1e-12


def test_it_covers_the_truth_where_wilsons_does_not() -> None:
    """12 sources of 10 videos, whose shares differ (beta-binomial, correlation 1/4 within a source)."""
    draws, truth, runs = np.random.default_rng(1), 0.8, 1500
    groups = [str(number // 10) for number in range(120)]
    covered = {"grouped": 0, "wilson": 0}
    for _ in range(runs):
        shares = draws.beta(3 * truth, 3 * (1 - truth), size=12)
        right = draws.random(120) < shares.repeat(10)
        found = grouped_interval(right, groups)
        alone = binomtest(int(right.sum()), 120).proportion_ci(method="wilson")
        covered["grouped"] += found.low <= truth <= found.high
        covered["wilson"] += alone.low <= truth <= alone.high
    assert covered["grouped"] / runs > 0.93
    assert covered["wilson"] / runs < 0.8
