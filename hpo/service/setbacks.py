"""For how long an optimizer leaves a study that raised an error here to others, and when it tries again itself.

Where it is the only one that might serve the study, it tries again soon: whatever was wrong may be mended. Where
another one may, which has not failed, the time grows with each failure: the machine may lack a package or a file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SETBACK_SECONDS: Final = 30.0
"""How long a study that raised an error is left alone at least."""
GROWTH: Final = 4.0
"""By how much longer it is left to others after each further error."""
MOST_SECONDS: Final = 3600.0
"""How long it is left to others at most."""


class Setbacks:
    """The studies that raised errors in one optimizer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed_at: dict[int, float] = {}
        self._times: dict[int, int] = {}
        """By study, how often it was left to others."""

    def note(self, study_id: int, *, others_may: bool) -> float:
        """Note that a study raised an error; return for how many seconds it is left alone, or to others who may."""
        self._failed_at[study_id] = self._clock()
        self._times[study_id] = self._times.get(study_id, 0) + 1 if others_may else 0
        return self._seconds(study_id, others_may=others_may)

    def holds(self, study_id: int, *, others_may: bool) -> bool:
        """Return whether a study is to be left alone still.

        Args:
            others_may: whether another optimizer lives that has not failed with it.
        """
        failed_at = self._failed_at.get(study_id)
        return failed_at is not None and self._clock() - failed_at < self._seconds(study_id, others_may=others_may)

    def over(self, study_id: int) -> None:
        """Forget a study: it was served."""
        self._failed_at.pop(study_id, None)
        self._times.pop(study_id, None)

    def _seconds(self, study_id: int, *, others_may: bool) -> float:
        times = self._times.get(study_id, 0) if others_may else 0
        # No higher power than is needed: one of some hundreds of errors is no number any more.
        power = min(max(0, times - 1), int(MOST_SECONDS // SETBACK_SECONDS))
        return float(min(SETBACK_SECONDS * GROWTH**power, MOST_SECONDS))
