"""How long to wait before a call is tried again, so that many workers do not come back at the same instant."""

from __future__ import annotations

import random

_MAX_DOUBLINGS = 32
"""More than enough; without a limit the exponent overflows after a day without the API."""


class Backoff:
    """Waits that double with every failure, with jitter."""

    def __init__(self, *, first_seconds: float = 0.5, most_seconds: float = 15.0) -> None:
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self.failures = 0
        """Failures since the last success."""

    def reset(self) -> None:
        """Start again from the shortest wait: a call succeeded."""
        self.failures = 0

    def next_seconds(self, retry_after: float | None = None) -> float:
        """Count a failure and return the wait, which is never more than `most_seconds`.

        Args:
            retry_after: the wait in seconds that the other side asked for; the result is at least this long.
        """
        doubled = self._first_seconds * 2 ** min(self.failures, _MAX_DOUBLINGS)
        self.failures += 1
        return max(jittered(min(self._most_seconds, doubled)), min(retry_after or 0.0, self._most_seconds))


def jittered(seconds: float) -> float:
    """Return a random time between half of `seconds` and `seconds`."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects no secret
