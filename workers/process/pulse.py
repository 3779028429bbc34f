"""Signs of life of a training process, from a thread of its own: it lives, and how far its work is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from ..training.progress import TrainingProgress
from .messages import Alive, Preparation
from .pipes import EventPipe


class Training(Protocol):
    """What trains, as far as a sign of life shows it. Both are read in another thread."""

    @property
    def steps(self) -> int:
        """Batches begun so far."""

    @property
    def progress(self) -> TrainingProgress | None:
        """How far the running epoch is, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """A training that is being set up again."""

    steps: int
    progress: TrainingProgress | None = None


class Pulse(AbstractContextManager["Pulse"]):
    """Sends `Alive` every few seconds while a block runs.

    What it says is read when it is sent, so that it costs the training nothing. The count of steps stands still when
    the main thread hangs, although this thread goes on; a process that was stopped sends nothing at all.
    """

    def __init__(self, events: EventPipe, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare to send every `seconds`; `clock` returns seconds."""
        self._events = events
        self._seconds = seconds
        self._clock = clock
        self._prepared = 0
        self._preparation: Preparation | None = None
        self._stage_began = (0.0, 0)
        """When the present step of the preparation was first heard of, and how many videos were done then."""
        self._training: Training | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def prepared(self, stage: str, done: int, total: int) -> None:
        """Count a step of the preparation: `done` of the `total` videos of a stage."""
        self._prepared += 1
        if self._preparation is None or self._preparation.stage != stage:
            self._stage_began = (self._clock(), done)
        began, first = self._stage_began
        seconds_each = (self._clock() - began) / (done - first) if done > first else None
        self._preparation = Preparation(
            stage=stage,
            done=done,
            total=total,
            seconds_left=None if seconds_each is None else (total - done) * seconds_each,
        )

    def trains(self, training: Training) -> None:
        """Say that training has begun."""
        self._training = training

    def _send(self) -> None:
        while not self._over.wait(self._seconds):
            self._events.send(self._alive())

    def _alive(self) -> Alive:
        training = self._training
        if training is None:
            return Alive(is_training=False, steps=self._prepared, progress=self._preparation)
        return Alive(is_training=True, steps=training.steps, progress=training.progress)
