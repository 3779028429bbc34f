"""How sure a share of right videos is when videos of one source are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

_CONFIDENCE: Final = 0.95
_Z: Final = float(norm.ppf(0.5 + _CONFIDENCE / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval of a share."""

    low: float
    high: float
    effective: float
    """How many videos of different sources would say as much as these do."""


def grouped_interval(right: NDArray[np.bool_], groups: Sequence[str]) -> Interval:
    """Return the interval of the mean of `right` (N,), whose videos are sampled in whole groups.

    It is Wilson's score interval (1927) for as many videos as these are worth: the variance of the mean is that between
    groups (the linearised variance of a ratio, Cochran, Sampling Techniques, 1977, section 11.8), and few groups know
    it badly, which Student's t takes into account (Korn and Graubard, Survey Methodology 24, 1998). Where every video
    is a group of its own it is Wilson's interval itself. Where all are right, or none, groups say nothing of the
    variance, and only their number counts.
    """
    n, names = len(right), sorted(set(groups))
    share = float(right.mean())
    worth = float(n) if len(names) == n else _effective(right, np.searchsorted(names, groups), len(names), share)
    low, high = _wilson(share, worth)
    return Interval(low=low, high=high, effective=worth)


def _effective(right: NDArray[np.bool_], group: NDArray[np.intp], count: int, share: float) -> float:
    n = len(right)
    if count == 1:
        return 1.0
    surplus = np.bincount(group, weights=right - share, minlength=count)
    variance = count / (count - 1) * float(np.square(surplus).sum()) / n**2
    spread = share * (1 - share)
    independent = min(float(n), spread / variance) if spread > 0 and variance > 0 else float(n)
    few_groups = (t.ppf(0.5 + _CONFIDENCE / 2, n - 1) / t.ppf(0.5 + _CONFIDENCE / 2, count - 1)) ** 2
    return max(1.0, independent * float(few_groups))


def _wilson(share: float, n: float) -> tuple[float, float]:
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high
