"""The variance between trainings, against closed forms and draws of a known truth."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.answer.seeds import between_seeds
from hpo.arrays import Array, Indices


def _between(ends: Array, owners: Indices, *, noise: float = 0.0, prior: float = 1.0, freedom: float = 4.0) -> float:
    shared = np.zeros(owners.max() + 1)
    return between_seeds(ends, np.full(len(ends), noise), owners, sampling=shared, prior=prior, freedom=freedom)


def _drawn(seed: int, *, sd: float, spread: float, count: int = 50, noise: float = 0.0) -> tuple[Array, Indices]:
    """Return ends and owners: one training of each configuration, then three more of the best three of them."""
    rng = np.random.default_rng(seed)
    true = spread * rng.standard_normal(count)
    total = np.sqrt(sd**2 + noise)
    first = true + total * rng.standard_normal(count)
    best = np.argsort(-first)[:3]
    again = [true[best] + total * rng.standard_normal(3) for _ in range(3)]
    return np.concatenate([first, *again]), np.concatenate([np.arange(count), best, best, best])


def test_without_repeated_trials_it_is_what_is_believed_beforehand() -> None:
    assert _between(np.array([0.1, 0.5, 0.9]), np.arange(3), prior=0.03**2) == pytest.approx(0.03**2)


def test_of_one_configuration_it_is_the_posterior_of_a_normal_sample() -> None:
    """With the scaled inverse chi-square prior, the precision is on average (freedom + n - 1) over all squares."""
    ends = np.array([0.0, 1.5, -0.7, 0.4, 2.1])
    squares = float(((ends - ends.mean()) ** 2).sum())
    found = _between(ends, np.zeros(5, dtype=np.intp), prior=0.5, freedom=4.0)
    assert found == pytest.approx((4 * 0.5 + squares) / (4 + 4), rel=0.1)


def test_the_luck_of_those_who_are_trained_again_is_no_difference_between_seeds() -> None:
    """50 configurations that differ by half a seed: of the three best the first training is 2 seeds above the rest."""
    drawn = [_drawn(seed, sd=1.0, spread=0.5) for seed in range(30)]
    found = np.sqrt([_between(*each) for each in drawn])
    naive = []
    for ends, owners in drawn:
        means = np.bincount(owners, ends) / np.bincount(owners)
        naive.append(np.sqrt((4 + ((ends - means[owners]) ** 2).sum()) / (4 + 9)))
    assert np.mean(naive) > 1.12
    assert found.mean() == pytest.approx(1.0, abs=0.09)


def test_larger_and_smaller_differences_than_believed_are_found() -> None:
    found = [np.sqrt(_between(*_drawn(seed, sd=sd, spread=3.0))) for sd in (0.3, 3.0) for seed in range(10)]
    small, large = np.mean(found[:10]), np.mean(found[10:])
    assert 0.3 < small < 0.8, "the prior of 1 counts as four of the nine"
    assert 2.2 < large < 3.5


def test_the_noise_of_curves_is_not_taken_for_a_difference_of_seeds() -> None:
    """All that differs between trainings is the stated noise of their curves; nothing is believed beforehand."""
    drawn = [_drawn(seed, sd=0.0, spread=3.0, noise=1.0) for seed in range(8)]
    blind = np.mean([_between(*each, prior=0.04) for each in drawn])
    told = np.mean([_between(*each, noise=1.0, prior=0.04) for each in drawn])
    assert blind > 0.5
    assert told < 0.1


def test_a_stated_noise_is_believed_more() -> None:
    ends, owners = _drawn(0, sd=3.0, spread=3.0)
    weak, strong = (_between(ends, owners, freedom=freedom) for freedom in (4.0, 40.0))
    assert 1.0 < strong < weak


@pytest.mark.parametrize("diverged", [-1e6, -1e15])
def test_a_repeated_configuration_that_diverged_says_nothing_about_seeds(diverged: float) -> None:
    ends, owners = _drawn(1, sd=1.0, spread=1.0)
    without = _between(ends, owners)
    more, of = np.append(ends, [diverged, 0.3 * diverged]), np.append(owners, [50, 50])
    assert _between(more, of) == pytest.approx(without, rel=0.2)
