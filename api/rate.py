"""A modest brake on guessing: a number of attempts per minute and client."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MOST_CLIENTS: Final = 10_000


@dataclass(slots=True, kw_only=True)
class RateLimiter:
    """Allows `attempts` in any `seconds` to each client of this process; forgets the oldest clients first."""

    attempts: int
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _seen: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_seconds(self, client: str) -> float:
        """Count an attempt; return 0 when it is allowed, else how long to wait (the attempt is then not counted)."""
        now = self.clock()
        with self._lock:
            times = self._seen.setdefault(client, deque())
            self._seen.move_to_end(client)
            if len(self._seen) > MOST_CLIENTS:
                self._seen.popitem(last=False)
            while times and times[0] <= now - self.seconds:
                times.popleft()
            if len(times) >= self.attempts:
                return times[0] + self.seconds - now
            times.append(now)
            return 0.0
