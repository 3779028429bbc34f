"""How long a study will still take, by how fast its trials have ended so far."""

from __future__ import annotations

from typing import Final

from ..store.study_row import StudyRow
from ..trial import TERMINAL_STATES, TrialState

LEAST_TRIALS: Final = 3
"""With fewer trials over, nobody knows how long one takes."""


def seconds_left(study: StudyRow) -> float | None:
    """Return when the budget will be used up at the pace so far: that of trials, hours of devices or of the clock,
    whichever comes first. None where that is not known: too few trials are over, or the study is not searching.
    """
    over = sum(study.counts.get(state, 0) for state in TERMINAL_STATES - {TrialState.WITHDRAWN})
    if not study.is_searching or over < LEAST_TRIALS or study.wall_seconds_spent <= 0:
        return None
    found = []
    if study.spec.budget.trials is not None:
        found.append(max(study.spec.budget.trials - over, 0) * study.wall_seconds_spent / over)
    if study.gpu_seconds_limit is not None and study.gpu_seconds_spent > 0:
        left = max(study.gpu_seconds_limit - study.gpu_seconds_spent, 0.0)
        found.append(left * study.wall_seconds_spent / study.gpu_seconds_spent)
    if study.wall_seconds_limit is not None:
        found.append(max(study.wall_seconds_limit - study.wall_seconds_spent, 0.0))
    return min(found, default=None)
