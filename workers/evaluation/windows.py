"""Cutting a stream of frames into windows, in memory for one window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.arrays import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """Frames in a row."""

    start: int
    """Number of the first frame, counted from 0."""
    frames: tuple[ByteArray, ...]


def windows(frames: Iterable[ByteArray], length: int, hop: int) -> Iterator[Window]:
    """Yield windows of `length` frames, each `hop` after the one before; a stream shorter than one is one window.

    What is left at the end is a window of its own where at least half of it was in none before.
    """
    held: deque[ByteArray] = deque(maxlen=length)
    count = end = 0  # `end`: behind the last frame that a window has shown
    for frame in frames:
        held.append(frame)
        count += 1
        if count >= length and (count - length) % hop == 0:
            yield Window(start=count - length, frames=tuple(held))
            end = count
    left = count - end
    if count and (end == 0 or 2 * left >= min(hop, length)):
        size = min(len(held), max(left, 1))
        yield Window(start=count - size, frames=tuple(held)[-size:])
