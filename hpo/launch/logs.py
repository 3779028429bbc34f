"""The logs of launchers in the data directory, and which of them nobody will look at any more."""

from __future__ import annotations

import re
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

KEPT_SECONDS: Final = 7 * 24 * 3600.0
"""After the last word in them: what a person wants to know of a launcher that has ended."""
_NAME: Final = re.compile(r"(?P<host>.+)-(?P<pid>\d+)(?:\.log)?", re.ASCII)


def log_folder(home: Path) -> Path:
    """Return where the launchers keep their logs."""
    return home / "launch"


def outlived_logs(home: Path) -> list[Path]:
    """Return the logs of launchers of this machine that have ended, in which nothing was written for a week.

    Those of `hpo launch local` are folders, those of a worker of Ray are files. The folders of Slurm's jobs stay: jobs
    may wait for longer than a week.
    """
    folder = log_folder(home)
    return sorted(path for path in (*folder.glob("*-*"), *(folder / "ray").glob("*-*.log")) if _is_outlived(path))


def remove_outlived_logs(home: Path) -> int:
    """Remove these, and return how many went."""
    removed = 0
    for path in outlived_logs(home):
        with suppress(OSError):  # another process has removed it, or it is not ours to remove
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed += 1
    return removed


def _is_outlived(path: Path) -> bool:
    named = _NAME.fullmatch(path.name)
    if named is None or named["host"] != socket.gethostname() or Path("/proc", named["pid"]).exists():
        return False
    with suppress(OSError):  # it is gone
        written = max(part.lstat().st_mtime for part in (path, *path.glob("*")))
        return not path.is_symlink() and time.time() - written > KEPT_SECONDS
    return False
