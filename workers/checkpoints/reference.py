"""Checkpoints that others name: looked for below folders that are ours, and nowhere else. Needs no torch.

A reference is what a worker has reported. Of the path only its end counts, `STUDY/TRIAL/NAME`, which has to have the
form of ours; so it does not matter where the folder of checkpoints was on that worker, and no other file of this
machine can be meant.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Final
from uuid import uuid4

from ..errors import CheckpointError
from .folder import DIGEST_BYTES, digest_in, open_file, run_in

_STUDY: Final = re.compile(r"^(\d{1,18}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$", re.ASCII)
_READ_AND_WRITE: Final = 0o666
FUNCTION_CHECKPOINT: Final = "checkpoint.json"
"""The member of a checkpoint of a person's own function that says what it is."""
_TRIAL: Final = re.compile(r"^\d{1,18}$", re.ASCII)


def folders_of(reference: str, roots: Sequence[Path]) -> list[Path]:
    """Return the folders of the trial that a reference names, below those of `roots` that have one."""
    *_, study, trial, name = ("", "", "", *PurePath(reference).parts)
    if not _STUDY.match(study) or not _TRIAL.match(trial) or run_in(name) is None:
        return []
    return [folder for root in roots if _is_inside(folder := root / study / trial, root)]


def find(reference: str, roots: Sequence[Path]) -> Path | None:
    """Return the file that a reference names, below the first of `roots` that has it; None if none does."""
    paths = (folder / PurePath(reference).name for folder in folders_of(reference, roots))
    return next((path for path in paths if path.is_file() and not path.is_symlink()), None)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a checkpoint: its identity, whatever it is called.

    Raises:
        CheckpointError: it cannot be read, or is a pipe, a device or a folder.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error.strerror})") from error


def copy(source: Path, target: Path) -> None:
    """Copy a checkpoint that `find` has found, once its content was checked; the copy has the mode of the source.

    But nobody may run it, and it runs as nobody: a worker's file could be a program that is a checkpoint too.

    Raises:
        CheckpointError: it is not a checkpoint of ours: damaged, or of another form.
        OSError: it cannot be read, or the copy not be written.
    """
    aside = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    with open_file(source, follow=False) as file:
        _check(file, source)
        mode = os.fstat(file.fileno()).st_mode & _READ_AND_WRITE
        try:
            with open(aside, "xb", opener=_private) as written:
                shutil.copyfileobj(file, written)
            with aside.open("rb") as again:
                _check(again, source)  # the source may have been changed meanwhile
            aside.chmod(mode)
            aside.replace(target)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)


def _check(file: BufferedReader, path: Path) -> None:
    """Check the digest and the form of a file from its beginning, and go back there."""
    file.seek(0)
    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()
    if digest != digest_in(path.name):
        raise CheckpointError(f"the checkpoint {path} is damaged: its content does not match its name")
    file.seek(0)
    if not any(name.endswith("/data.pkl") or name == FUNCTION_CHECKPOINT for name in _members(file)):
        raise CheckpointError(f"{path} is not a checkpoint: it has neither the form of PyTorch's files nor ours")
    file.seek(0)


def _members(file: BufferedReader) -> Iterator[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            yield from archive.namelist()
    except zipfile.BadZipFile:
        return


def _is_inside(folder: Path, root: Path) -> bool:
    return folder.is_dir() and folder.resolve().is_relative_to(root.resolve())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
