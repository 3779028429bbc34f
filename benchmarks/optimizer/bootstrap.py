"""Bootstrap intervals of figures that are geometric means over problems.

Runs (seeds) are resampled with replacement within every problem, and the means of a problem are those of the sample.
The interval is the percentile interval (Efron and Tibshirani, 1993, section 13.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 2000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its intervals."""

    value: float
    low: float
    high: float
    """The ends of the interval over seeds, with the problems fixed."""
    wide_low: float
    wide_high: float
    """The ends when problems are resampled too, which estimates the spread over similar problems."""


def weights(runs: int, *, draws: int = DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """Return the share of each run in each draw, (1 + draws, runs); the first row is the sample itself."""
    rng = np.random.default_rng([seed, runs])
    counts = rng.multinomial(runs, np.full(runs, 1 / runs), size=draws)
    return np.vstack([np.full((1, runs), 1 / runs), counts / runs])


def over_problems(logs: Sequence[NDArray[np.float64]], *, seed: int = 0) -> Estimate:
    """Return the geometric mean of ratios; `logs` holds, for each problem, the log ratio in every row of `weights`."""
    table = np.array(logs)
    means = table.mean(axis=0)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(table), size=(table.shape[1] - 1, len(table)))
    wide = np.take_along_axis(table[:, 1:].T, drawn, axis=1).mean(axis=1)
    ends, wide_ends = interval(means[1:]), interval(wide)
    low, high, wide_low, wide_high = (float(np.exp(end)) for end in (*ends, *wide_ends))
    return Estimate(value=float(np.exp(means[0])), low=low, high=high, wide_low=wide_low, wide_high=wide_high)


def of_means(tables: Sequence[NDArray[np.float64]]) -> Estimate:
    """Return the plain mean over problems of the mean over runs; `tables` holds the runs of each problem."""
    means = np.mean([weights(len(runs), seed=place) @ runs for place, runs in enumerate(tables)], axis=0)
    low, high = interval(means[1:])
    return Estimate(value=float(means[0]), low=low, high=high, wide_low=low, wide_high=high)


def interval(draws: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of the draws, some of which may be infinite."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)
