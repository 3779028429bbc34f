"""How long a study will still take, by how long its trials have taken and how many run."""

from __future__ import annotations

from typing import Final

from ..store.study_row import StudyRow
from ..trial import TrialState

LEAST_TRIALS: Final = 3
"""With fewer trials over, nobody knows how long one takes."""


def seconds_left(study: StudyRow) -> float | None:
    """Return when the budget will be used up by as many trials at a time as run now, each as long as those before:
    that of trials, hours of devices or of the clock, whichever comes first. None where that is not known: too few
    trials are over, none runs, or the study is not searching.

    The clock alone would not do: it goes on while a study is paused, or ended and reopened.
    """
    over = study.trials_over
    running = study.counts.get(TrialState.RUNNING, 0)
    if not study.is_searching or over < LEAST_TRIALS or study.gpu_seconds_spent <= 0 or not running:
        return None
    found = []
    if study.spec.budget.trials is not None:
        # What trains a configuration again does not count against the budget. Those that run are half done, on average.
        searched = max(over - study.replicates, 0)
        each = study.gpu_seconds_spent / (over + running / 2)
        found.append(max(study.spec.budget.trials - searched - running / 2, 0) * each / running)
    if study.gpu_seconds_limit is not None:
        found.append(max(study.gpu_seconds_limit - study.gpu_seconds_spent, 0.0) / running)
    if study.wall_seconds_limit is not None:
        found.append(max(study.wall_seconds_limit - study.wall_seconds_spent, 0.0))
    return min(found, default=None)
