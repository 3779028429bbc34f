"""SIGTERM and Ctrl-C as requests that a loop sees when it looks."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ..installation import REPEATED_SECONDS

_LOOK_SECONDS: Final = 0.2


class Signals:
    """How often this program was asked to end, and how often its loop has seen that."""

    def __init__(self) -> None:
        self._came = 0
        self._came_at = 0.0
        self._seen = 0

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal: the handler."""
        now = time.monotonic()
        if number == signal.SIGTERM and self._came and now - self._came_at < REPEATED_SECONDS:
            return
        self._came, self._came_at = self._came + 1, now

    def take(self) -> int | None:
        """Return the number of the next request that was not taken yet, from 1 on; None where there is none."""
        if self._seen == self._came:
            return None
        self._seen += 1
        return self._seen

    def wait(self, seconds: float) -> None:
        """Wait, but not long beyond a signal."""
        ends = time.monotonic() + seconds
        while self._seen == self._came and (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))  # an event that a handler sets could block the handler for ever


@contextmanager
def asked_to_end() -> Iterator[Signals]:
    """Catch SIGTERM and SIGINT during the block. Only the main thread can do that."""
    signals = Signals()
    before = {number: signal.signal(number, signals.note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
