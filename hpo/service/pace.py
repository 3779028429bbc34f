"""How many suggestions are planned from one fit of the models: several where a trial is over before one is planned.

A trial of seconds would otherwise wait for its suggestion longer than it runs. What is planned ahead does not know the
results of what runs meanwhile: the queue is therefore never longer than a share of the results that there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Final

from ..trial import TrialRecord, TrialState

MOST: Final = 16
"""Suggestions of one fit at most."""
SHARE: Final = 8
"""One suggestion for so many results, and one more."""
_LAST: Final = 16
"""Trials with a result whose lengths count."""
_FEWEST: Final = 4


def suggestions_of_a_fit(ended: Iterable[TrialRecord], *, workers: int, fit_seconds: float) -> int:
    """Return how many suggestions to plan at once: as many as trials end while one is planned, at most a share of them.

    Args:
        ended: trials that have ended.
        workers: that ask at the same time.
        fit_seconds: how long the last plan took.
    """
    known = list(ended)
    # Failures are over at once wherever a machine is sick or a configuration cannot run: that makes no trial cheap.
    with_result = [one for one in known if one.state is not TrialState.FAILED]
    spans = [
        (one.finished_at - one.started_at).total_seconds()
        for one in sorted(with_result, key=lambda one: one.id)[-_LAST:]
        if one.finished_at is not None and one.started_at is not None
    ]
    if len(spans) < _FEWEST:
        return 1
    seconds = max(median(spans) / max(workers, 1), 1e-3)
    return max(1, min(math.floor(fit_seconds / seconds), len(known) // SHARE + 1, MOST))
