"""Folders that several users of a machine share: what one of them writes, another continues.

A folder that its group may write was made so by a person, for users of that group. What is made in it stays theirs,
whatever the umask of the user whose worker makes it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_GROUP_FOLDER = stat.S_ISGID | stat.S_IRWXG
_GROUP_FILE = stat.S_IRGRP | stat.S_IWGRP


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, for the group where they are made in a folder of the group.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        path.mkdir()
    except FileExistsError as error:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
    else:
        share(path)


def share(path: Path) -> None:
    """Let the group have what was just made in a folder of the same group; nothing elsewhere.

    Raises:
        OSError: it is gone, or the file system has no modes.
    """
    made, around = path.stat(), path.parent.stat()
    if around.st_mode & stat.S_IWGRP and made.st_gid == around.st_gid:
        group = _GROUP_FOLDER if stat.S_ISDIR(made.st_mode) else _GROUP_FILE
        path.chmod(stat.S_IMODE(made.st_mode) | around.st_mode & group)
