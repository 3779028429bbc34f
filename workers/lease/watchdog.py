"""Notices a training process that was stopped or that hangs, from its signs of life.

Time counts only while the worker itself runs: a machine that was suspended, or a job that a scheduler stopped with all
its processes, is not taken for a process that hangs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..process.messages import Alive

_TICKS_PER_LIMIT: Final = 10
_LONGEST_PULSE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a training process may do nothing, in seconds."""

    starting_seconds: float = 900.0
    """Until its first sign of life; the import of PyTorch from a network file system takes minutes."""
    silent_seconds: float = 300.0
    """From one sign of life to the next."""
    step_seconds: float = 1200.0
    """From one batch to the next, at least: a checkpoint may be written between them, or cuDNN try its algorithms."""
    longest_steps: float = 20.0
    """The same, in multiples of the longest step so far; the larger of both counts."""
    preparing_seconds: float = 12 * 3600.0
    """From one video to the next while the data set is prepared: it may be another process that prepares it."""

    @classmethod
    def of(cls, seconds: float) -> Patience:
        """Return the patience of a worker whose limits of a sign of life and of a step a person has set."""
        return cls(starting_seconds=max(cls().starting_seconds, seconds), silent_seconds=seconds, step_seconds=seconds)

    @property
    def pulse_seconds(self) -> float:
        """How often the process gives a sign of life."""
        return min(_LONGEST_PULSE_SECONDS, self.silent_seconds / _TICKS_PER_LIMIT)


class Watchdog:
    """Watches one training process."""

    def __init__(self, patience: Patience, now: float) -> None:
        """Begin at the time `now`, in seconds."""
        self._patience = patience
        self._now = now
        self._silent = 0.0
        self._standing = 0.0
        """Since a sign of life showed a step."""
        self._longest = 0.0
        self._last: Alive | None = None
        self._has_begun = False
        """Whether the process has said anything."""
        self.tick_seconds = min(patience.silent_seconds, patience.step_seconds) / _TICKS_PER_LIMIT
        """How often `passed` is to be called, at least."""

    def passed(self, now: float) -> None:
        """Count the time until `now`; of a longer time than two ticks it is not known that the process could run."""
        seconds = min(now - self._now, 2 * self.tick_seconds)
        self._now = now
        self._silent += seconds
        self._standing += seconds

    def heard(self, alive: Alive | None = None) -> None:
        """Take a message of the process, and its count of steps if it is a sign of life."""
        self._silent = 0.0
        self._has_begun = True
        if alive is None:
            return
        last, self._last = self._last, alive
        if last is not None and last.is_training and alive.is_training and alive.steps > last.steps:
            self._longest = max(self._longest, self._standing)
        if last is None or (last.is_training, last.steps) != (alive.is_training, alive.steps):
            self._standing = 0.0

    def problem(self) -> str | None:
        """Return what shows that the process hangs, as a sentence; None while nothing does."""
        if self._silent > (self._patience.silent_seconds if self._has_begun else self._patience.starting_seconds):
            return f"the training process gave no sign of life for {self._silent:.0f} s"
        if self._last is not None and self._standing > self._limit():
            what = "no batch was trained" if self._last.is_training else "the preparation of the data set stood still"
            return f"{what} for {self._standing:.0f} s, although the training process lives"
        return None

    def _limit(self) -> float:
        if self._last is None or not self._last.is_training:
            return self._patience.preparing_seconds
        return max(self._patience.step_seconds, self._patience.longest_steps * self._longest)
