"""Which differences between configurations a number of validation clips can show."""

from __future__ import annotations

import math
from typing import Final

from .estimates import SHARED_ERROR

_NORMAL_90: Final = 1.2816
"""The normal distribution exceeds it with a probability of one in ten."""
LARGE_DIFFERENCE: Final = 0.1
"""A study that can only see differences above this is told so."""


def smallest_difference(clips: int) -> float:
    """Return the difference of two shares below which the worse looks the better in more than one comparison of ten.

    Both are shares of the same clips, around one half: that is where they are the least sure. Seeds and epochs come on
    top of it.
    """
    return _NORMAL_90 * math.sqrt(2 * (1 - SHARED_ERROR) * 0.25 / clips)


def few_clips(metric: str, clips: int, *, called: str) -> str | None:
    """Return a sentence about what so many clips cannot show; None where they are enough for most studies.

    `called` is the word for clips, as `Task.validated_on` has it.
    """
    difference = smallest_difference(clips)
    if difference < LARGE_DIFFERENCE:
        return None
    return (
        f"with {clips} validation {called}, differences of {metric} below {difference:.2g} cannot be seen: of two such"
        " configurations the worse one looks better at least once in ten times; hold out more groups"
        " (task.dataset.held_out), use k-fold validation (task.dataset.validation: kfold), or compare the best in"
        " several trainings"
    )
