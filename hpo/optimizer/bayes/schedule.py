"""At which numbers of observations models are refitted: at every one at first, later at steps of about a twentieth."""

from __future__ import annotations

_MIN_OBSERVATIONS_PER_STEP = 20


def scheduled(count: int) -> int:
    """Return the number of observations, at most `count`, that hyperparameters are fitted to."""
    step = 1
    while step * 2 * _MIN_OBSERVATIONS_PER_STEP <= count:
        step *= 2
    return count - count % step
