"""Whether a server is alive in a data directory: it holds `server.lock`, and the kernel lets go of that with it.

So an address that a killed server left behind is never taken for that of a living one, whatever process has its number
by now. In the same way programs hold `programs.lock` while they use a server that one of them has started.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

_LOCK: Final = "server.lock"
_PROGRAMS: Final = "programs.lock"
WHILE_USED: Final = "HPO_WHILE_USED"
"""An environment variable, set for a server that a program of a person's has started: it ends with the last of them."""
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


def create_home(home: Path) -> None:
    """Create a data directory for this user alone, unless it is there.

    Raises:
        OSError: that is not possible.
    """
    if not home.exists():
        home.mkdir(parents=True, exist_ok=True)
        # Started by root, the embedded Postgres runs as another user, who must be able to pass this folder.
        home.chmod(0o711 if os.geteuid() == 0 else 0o700)


@contextmanager
def used(home: Path) -> Iterator[Callable[[], bool]]:
    """Use the server of a data directory during the block: one that a program has started does not end meanwhile.

    Waits while one that nobody uses any more comes to its end. What is yielded returns, at the end of the block,
    whether no other program uses it; none begins to before the block is left.
    """
    with _ours(home / _PROGRAMS) as programs:
        fcntl.flock(programs, fcntl.LOCK_SH)

        def is_last() -> bool:
            with suppress(BlockingIOError):
                fcntl.flock(programs, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        yield is_last


def end_when_unused(home: Path) -> None:
    """End this server with SIGTERM once no program uses it, however they ended; none begins to before it has ended."""
    programs = _ours(home / _PROGRAMS)

    def wait() -> None:
        fcntl.flock(programs, fcntl.LOCK_EX)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="programs", daemon=True).start()


@contextmanager
def starting(home: Path) -> Iterator[None]:
    """Be the only program that starts a server in a data directory, or looks whether it must, during the block."""
    with _ours(home / "starting.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ours(path: Path) -> IO[str]:
    """Open a file to be locked, which no other user can lock."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "w")


def _lock(lock: IO[str]) -> bool:
    deadline = time.monotonic() + _LOCKING_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
