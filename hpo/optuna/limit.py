"""What one call of `optimize` may still run."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ..client.asked_trial import AskedTrial
from ..client.asking import Study as Asker

_ASKED_SECONDS: Final = 2.0
"""How long a call that was stopped may still wait for a trial."""


@dataclass(slots=True)
class Limit:
    """What one call of `optimize` may still run."""

    trials: int | None
    ends_at: float | None
    is_stopped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    error: BaseException | None = None

    def is_over(self) -> bool:
        """Return whether the call was stopped, or its time has passed."""
        return self.is_stopped or (self.ends_at is not None and time.monotonic() >= self.ends_at)

    def take(self) -> bool:
        """Return whether another trial may begin, and count it."""
        with self.lock:
            if self.is_over():
                return False
            if self.trials is None:
                return True
            self.trials -= 1
            return self.trials >= 0

    def ask(self, asker: Asker) -> AskedTrial | None:
        """Return the next trial; None where the study has ended, or the call is over before there is one."""
        while not self.is_over():
            left = math.inf if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())
            with suppress(TimeoutError):
                return asker.ask(timeout=min(_ASKED_SECONDS, left))
        return None
