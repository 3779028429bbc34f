"""How many validation clips are behind an accuracy, and the error that this number leaves.

A share of n clips is a multiple of 1/n, so n is the smallest number that makes all values of a study whole. The share
of the clips that were drawn is not the share of all clips there are. This error does not show in the scatter of the
epochs, which are scored on the same clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

_MOST: Final = 1000
_LEAST_VALUES: Final = 10
_LEAST_DISTINCT: Final = 5
_TOLERANCE: Final = 1e-6
_ROUND: Final = frozenset({1, 2, 4, 5, 10, 20, 25, 50, 100, 200, 500, 1000})
"""Values that were rounded to two or three digits look like shares of so many clips."""


def clip_count(values: Sequence[float]) -> int | None:
    """Return the number of clips of which `values`, positive or all negative, are shares; None if they are of none."""
    shares = np.unique(np.abs(values))
    if len(values) < _LEAST_VALUES or len(shares) < _LEAST_DISTINCT or shares[-1] > 1:
        return None
    for count in range(1, _MOST + 1):
        if np.abs(shares * count - np.round(shares * count)).max() < _TOLERANCE * count:
            return None if count in _ROUND else count
    return None


def sampling_variance(share: float, clips: int) -> float:
    """Return the binomial variance of a share of `clips`, with one success and one failure added to what was seen."""
    mean = (min(max(share, 0.0), 1.0) * clips + 1) / (clips + 2)
    return mean * (1 - mean) / clips
