"""How long steps tell their caller how far they are."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the step's name, what is done and what there is: from any thread, one call at a time."""

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...
