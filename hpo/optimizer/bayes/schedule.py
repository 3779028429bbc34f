"""At which numbers of observations models are chosen anew: every one at first, then a twentieth apart."""

from __future__ import annotations

_EVERY = 20


def scheduled(count: int) -> int:
    """Return the number of observations, at most `count`, that hyperparameters are chosen from."""
    step = 1
    while step * 2 * _EVERY <= count:
        step *= 2
    return count - count % step
