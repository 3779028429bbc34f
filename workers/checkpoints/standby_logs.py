"""The logs of standby processes in the folder of checkpoints, and removing those of dead ones.

A log moves into the folder of its trial with the job. One whose worker was killed before that stays behind. Each is
locked by the process that prints to it, for as long as that lives, on whichever machine that shares the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Final

_NAME: Final = re.compile(r"^\.standby-\d+-\d+(-locked|)\.log$", re.ASCII)
"""Releases up to 0.2.0 locked nothing."""
_LEAST_AGE_SECONDS: Final = {"-locked": 300.0, "": 30 * 24 * 3600.0}
"""A log is locked just after it was made; and a process of an earlier release waits as long as the trial before it."""
_numbers = count(1)


def open_standby_log(folder: Path) -> tuple[Path, IO[bytes]]:
    """Return a new file for what a process prints, and its path: locked until each copy of its descriptor is closed."""
    path = folder / f".standby-{os.getpid()}-{next(_numbers)}-locked.log"
    file = path.open("wb")
    with suppress(OSError):  # a file system without locks: it is kept for its age
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return path, file


def abandoned_logs(folder: Path) -> list[Path]:
    """Return the logs that no process prints to any more; none of a folder that cannot be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if _is_abandoned(entry))
    return []


def remove_abandoned_logs(folder: Path) -> int:
    """Remove the logs that no process prints to any more, and return how many went."""
    removed = 0
    for path in abandoned_logs(folder):
        with suppress(OSError):  # another process has removed it, or it is not ours to remove
            path.unlink()
            removed += 1
    return removed


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    named = _NAME.match(entry.name)
    if named is None:
        return False
    try:
        found = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or time.time() - found.st_mtime < _LEAST_AGE_SECONDS[named[1]]:
            return False
        with open(entry.path, "r+b") as file:  # for writing, as a lock over NFS wants
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, gone, or a file system without locks
        return False
    return True
