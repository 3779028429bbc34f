"""Who else may read or change what is in the data directory: it holds the key of all tokens, and an admin's token."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import SetupError
from ..settings import Settings, is_of_stranger

_OTHERS_READ = stat.S_IRWXG | stat.S_IRWXO


def warnings(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each thing that users besides this one could read or change, but that may be meant so.

    Raises:
        SetupError: everybody on this machine may put files into the data directory, or somebody else has.
    """
    home = settings.home
    found = home.stat()
    if found.st_mode & stat.S_IWOTH:
        what = "put files into" if found.st_mode & stat.S_ISVTX else "replace the secrets in"
        raise SetupError(f"every user of this machine can {what} the data directory {home}: {_remedy(found, home)}")
    for parent in home.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield f"every user of this machine can put another folder in place of {home}: they may write into {parent}"
    if found.st_uid not in (os.geteuid(), 0):
        yield f"the data directory {home} belongs to user {found.st_uid}, who can replace the secrets in it"
    if found.st_mode & stat.S_IWGRP:
        yield (
            f"every user of the group {found.st_gid} can replace the secrets in the data directory {home}; "
            f"`chmod g-w {home}` takes that from them"
        )
    yield from _of_secret(home / "secret", "remove it while the service is stopped, which ends all tokens")
    yield from _of_secret(settings.token_file, "make another with `hpo token create` and revoke it")


def _remedy(found: os.stat_result, home: Path) -> str:
    if os.geteuid() in (0, found.st_uid):
        return (
            f"take that from them with `chmod o-w {home}`, or choose a folder of your own with --home (on a mount that "
            "keeps no modes, such as a share of Windows, only that helps)"
        )
    return (
        f"it belongs to user {found.st_uid}, so choose a folder in it, such as HPO_HOME={home / 'hpo'}, which is made "
        "for you alone, or one elsewhere"
    )


def _of_secret(path: Path, remedy: str) -> Iterator[str]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if is_of_stranger(found, path.parent):
        raise SetupError(f"{path} belongs to user {found.st_uid}, who knows what is in it: remove it")
    if found.st_mode & _OTHERS_READ:
        yield f"other users could read {path} until now; if one of them may have, {remedy}"
