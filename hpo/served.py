"""Whether a server is alive in a data directory: it holds `server.lock`, and the kernel lets go of that with it.

So an address that a killed server left behind is never taken for that of a living one, whatever process has its number
by now.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

_LOCK: Final = "server.lock"
_LOCKING_SECONDS: Final = 1.0
"""Who only asks holds the lock for a moment, and a server that starts waits for that."""


@contextmanager
def serving_home(home: Path) -> Iterator[bool]:
    """Own the data directory during the block; False is yielded where another server does."""
    with (home / _LOCK).open("a") as lock:
        yield _lock(lock)


def is_served(home: Path) -> bool:
    """Return whether a server is alive in a data directory; True also where that cannot be told."""
    try:
        with (home / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True  # it is held; or there is none, as beside a server of an earlier release
    return False


def _lock(lock: IO[str]) -> bool:
    deadline = time.monotonic() + _LOCKING_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
