"""Copies of tokens that job arrays of Slurm read, and which of them nobody reads any more."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..installation import child_environment

_SUBMITTING_SECONDS: Final = 3600.0
"""A folder without the script of an array is that of a launch that failed, or has not submitted its jobs yet."""
_ASK_SECONDS: Final = 30.0


def write_token(folder: Path, token: str) -> Path:
    """Write a token into a file of a new folder that this user alone can read, and return its path."""
    path = folder / "token"
    folder.mkdir(parents=True, mode=0o700)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)
    return path


def outlived_tokens(home: Path) -> list[Path]:
    """Return the copies of tokens in a data directory whose job arrays have ended; none where Slurm does not answer."""
    found = sorted((home / "launch").glob("slurm-*/token"))
    waiting = _arrays_in_queue() if found else None
    return [] if waiting is None else [path for path in found if _is_outlived(path, waiting)]


def remove_outlived_tokens(home: Path) -> int:
    """Remove these, and return how many went."""
    removed = 0
    for path in outlived_tokens(home):
        with suppress(OSError):  # another process has removed it, or it is not ours to remove
            path.unlink()
            removed += 1
    return removed


def _is_outlived(path: Path, waiting: set[str]) -> bool:
    # submitit names the script that it submits by the number of the array.
    numbers = {script.name.partition("_")[0] for script in path.parent.glob("*_submission.sh")}
    if not numbers:
        return time.time() - path.parent.stat().st_mtime > _SUBMITTING_SECONDS
    return not numbers & waiting


def _arrays_in_queue() -> set[str] | None:
    """Return the numbers of this user's arrays of which a job waits or runs; None where Slurm does not say."""
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F"]
    try:
        said = subprocess.run(
            command, env=child_environment(), capture_output=True, text=True, check=True, timeout=_ASK_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return set(said.stdout.split())
