"""The main memory of this machine or container, and whether the kernel ended a process because it was full.

The kernel kills with SIGKILL, as a person may; what tells them apart is a counter of the control group, which a
process shares with those that it starts. Both versions of control groups are read, and the whole machine's where there
are none.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_GROUPS: Final = Path("/sys/fs/cgroup")
_KILLS: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_OWN_SHARE: Final = 0.5
"""A process that held so much of the memory is the one to blame, and not those beside it."""
_FIRST_TO_GO: Final = 500
"""Of the kernel's scale from -1000 to 1000, where 1000 stands for all of the memory."""


class Shortage(Enum):
    """Why main memory was full when the kernel ended a process."""

    OTHERS = "others"
    """What else runs there had taken most of it."""
    ITSELF = "itself"
    """The process had."""
    UNKNOWN = "unknown"
    """The process may have."""


class MemoryWatch:
    """Finds out what became of a training process, from before its start to after its end."""

    def __init__(self) -> None:
        """Begin, before the process takes memory."""
        self._kills = oom_kills()
        self._largest = _largest_child_bytes()
        self.peak_bytes: int | None = None
        """The most that the process held, where `shortage` has found that out."""

    def shortage(self) -> Shortage | None:
        """Return why memory was full, after the process was killed and waited for; None if that was not the cause."""
        kills = oom_kills()
        if kills is None or self._kills is None or kills <= self._kills:
            return None
        # Of all children that have ended the kernel keeps the largest: this one, if that has grown.
        largest = _largest_child_bytes()
        if largest < _OWN_SHARE * total_bytes():
            return Shortage.OTHERS
        if largest == self._largest:
            return Shortage.UNKNOWN
        self.peak_bytes = largest
        return Shortage.ITSELF


def total_bytes() -> int:
    """Return the main memory of the machine, or of the container if that is less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    texts = (_read(_GROUPS / "memory.max"), _read(_GROUPS / "memory" / "memory.limit_in_bytes"))
    limits = [int(text) for text in texts if text is not None and text.strip().isdigit()]  # else the word `max`
    return min([physical, *limits])


def oom_kills() -> int | None:
    """Return how many processes of this control group, or of the machine, the kernel has ended for lack of memory."""
    for path in (*_counters(), _PROC / "vmstat"):
        found = _KILLS.search(_read(path) or "")
        if found is not None:
            return int(found[1])
    return None


def let_kernel_end_this_first() -> None:
    """Where memory runs out, have the kernel end this process before the worker, the API and the database."""
    path = _PROC / "self" / "oom_score_adj"
    with suppress(OSError, ValueError):
        if int(path.read_text(encoding="ascii")) < _FIRST_TO_GO:
            path.write_text(str(_FIRST_TO_GO), encoding="ascii")


def _counters() -> Iterator[Path]:
    """Yield where the control group of this process may count, the nearest first."""
    for line in (_read(_PROC / "self" / "cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        # In a container the name is often that of the machine's view, and its group the top of what it sees.
        if not controllers:
            yield _GROUPS / name.lstrip("/") / "memory.events"
            yield _GROUPS / "memory.events"
        elif "memory" in controllers.split(","):
            yield _GROUPS / "memory" / name.lstrip("/") / "memory.oom_control"
            yield _GROUPS / "memory" / "memory.oom_control"


def _largest_child_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
