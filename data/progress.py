"""The callback with which long steps report their progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the step's name, the count done and the total: from any thread, but one call at a time."""

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...
