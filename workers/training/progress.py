"""How far the running epoch is: measured by the training loop, and read by the thread that tells a person."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

if TYPE_CHECKING:
    # What the worker, which never imports torch, reads of this module needs none of it.
    from .epoch import EpochResult

T = TypeVar("T")
SECONDS_BETWEEN: Final = 1.0
"""The least time from one measurement to the next within a part of an epoch."""
READ_SECONDS: Final = 10.0
"""The time after which the loss is read on a GPU, which waits for all that was started before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """A point within an epoch."""

    stage: Literal["training", "validation"]
    epoch: int
    """The running epoch, from 1."""
    epochs: int
    batch: int
    """Batches done of this part of the epoch."""
    batches: int
    loss: float
    """Mean training loss per clip of the epoch so far."""
    learning_rate: float
    """Of the last update; that of the groups of parameters whose multiplier is 1."""
    clips_per_second: float
    waiting: float
    """Share of the time, from 0 to 1, that the loop waited for the next batch."""
    memory_bytes: int
    """The most memory so far."""
    seconds_left: float
    """Until the end of the run, as far as it can be known."""


class Waits(Generic[T]):
    """Iterates over `items` and adds up how long they took to arrive."""

    def __init__(self, items: Iterator[T], clock: Callable[[], float] = time.perf_counter) -> None:
        self._items = items
        self._clock = clock
        self.seconds = 0.0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        # A class rather than a generator: its frame would keep the last batch, and with it memory.
        before = self._clock()
        try:
            return next(self._items)
        finally:
            self.seconds += self._clock() - before


class ProgressMeter:
    """Measures the running epoch. One thread measures; `latest` may be read by any."""

    def __init__(self, *, epochs: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Prepare for a run of `epochs`; `clock` returns seconds."""
        self.latest: TrainingProgress | None = None
        self._epochs = epochs
        self._clock = clock
        self._waits: Waits[Any] | None = None
        self._began = self._shown_at = self._read_at = clock()
        self._first_batch = 0

    def start_epoch(self, batches: Iterator[T], *, first: int) -> Waits[T]:
        """Begin an epoch at batch `first`, and return its batches, which are waited for."""
        self._waits = waits = Waits(batches, self._clock)
        self._began = self._read_at = self._clock()
        self._shown_at = self._began - SECONDS_BETWEEN
        self._first_batch = first
        return waits

    def may_read(self) -> bool:
        """Return whether the loss was not read for so long that reading it costs nothing to speak of."""
        return self._clock() - self._read_at >= READ_SECONDS

    def is_due(self) -> bool:
        """Return whether it is time for :meth:`measure`, which is asked whenever the loss was read."""
        now = self._read_at = self._clock()
        return now - self._shown_at >= SECONDS_BETWEEN

    def measure(
        self,
        *,
        batch: int,
        batches: int,
        clips_per_batch: int,
        loss: float,
        learning_rate: float,
        memory_bytes: int,
        curve: Sequence[EpochResult],
    ) -> None:
        """Set `latest` to training, `batch` of `batches` done of the epoch after `curve`."""
        self._shown_at = now = self._clock()
        # At least a microsecond: a clock may stand still over a small batch.
        seconds = max(now - self._began, 1e-6)
        seconds_per_batch = seconds / max(1, batch - self._first_batch)
        self.latest = TrainingProgress(
            stage="training",
            epoch=len(curve) + 1,
            epochs=self._epochs,
            batch=batch,
            batches=batches,
            loss=loss,
            learning_rate=learning_rate,
            clips_per_second=clips_per_batch / seconds_per_batch,
            waiting=min(1.0, self._waits.seconds / seconds) if self._waits is not None else 0.0,
            memory_bytes=memory_bytes,
            seconds_left=_seconds_left(
                curve, epochs=self._epochs, left=batches - batch, batches=batches, seconds_per_batch=seconds_per_batch
            ),
        )

    def validate(self, *, batch: int, batches: int) -> None:
        """Set `latest` to validation, `batch` of `batches` done; the other numbers stay those of the training."""
        latest, now = self.latest, self._clock()
        if latest is None or (0 < batch < batches and now - self._shown_at < SECONDS_BETWEEN):
            return
        self._shown_at = now
        self.latest = replace(latest, stage="validation", batch=batch, batches=batches)


def _seconds_left(
    curve: Sequence[EpochResult], *, epochs: int, left: int, batches: int, seconds_per_batch: float
) -> float:
    """Return the time to the end of a run that has `left` of `batches` before it in the epoch after `curve`.

    Later epochs take as long as the last one, and so does the validation of this one; before there is one, they take
    the time of their training.
    """
    later = epochs - len(curve) - 1
    if not curve:
        return left * seconds_per_batch + later * batches * seconds_per_batch
    last = curve[-1]
    return left * seconds_per_batch + last.metrics.get("validation_seconds", 0.0) + later * last.seconds
