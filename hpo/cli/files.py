"""Files of studies on this machine, for the commands that remove them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from .app import err, out

if TYPE_CHECKING:
    from ..protocol import RemovedFiles

MANY: Final = 10
"""How many sentences about files that stay are printed."""


def remove_study_files(root: Path, study: UUID) -> RemovedFiles:
    """Remove the files of a deleted study from a folder of checkpoints, and return what was removed."""
    from workers.checkpoints.stored import remove_study

    from ..protocol import RemovedFiles

    removed = remove_study(root, study)
    return RemovedFiles(files=removed.files, bytes=removed.bytes, left=removed.left)


def print_deletion(deleted: Mapping[str, Any], root: Path) -> None:
    """Remove the files that a deleted study has in `root`, and say what became of all of its files."""
    if not deleted:
        err.print("the service is of an earlier release and keeps the checkpoint files of deleted studies")
        return
    here = remove_study_files(root, UUID(deleted["uuid"]))
    files, size = deleted["files_removed"] + here.files, deleted["bytes_removed"] + here.bytes
    if files:
        out.print(f"removed {counted(files, 'file')} ({size_of(size)})")
    print_left(list(dict.fromkeys([*deleted["left"], *here.left])))
    others = [host for host in deleted["hosts"] if host != socket.gethostname()]
    if others:
        out.print(
            f"its trials ran on {', '.join(others)}: what lies there goes when a worker starts there, or with `hpo gc`",
        )


def size_of(count: int) -> str:
    """Return a number of bytes in a unit that a person reads, powers of 1000."""
    value, units = float(count), ("B", "kB", "MB", "GB", "TB", "PB")
    unit = 0
    while value >= 999.5 and unit + 1 < len(units):
        value, unit = value / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.3g} {units[unit]}"


def print_left(sentences: list[str]) -> None:
    """Print the sentences about files that stay, the first of them if there are many."""
    for sentence in sentences[:MANY]:
        err.print(sentence)
    if len(sentences) > MANY:
        err.print(f"and {len(sentences) - MANY} more")


def counted(number: int, what: str) -> str:
    """Return a number of things in words, such as `1 file` or `3 files`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
