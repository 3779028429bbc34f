"""What lies in a folder of checkpoints, of all studies and trials, and removing some of it. Needs no torch.

Only what is ours by its name is removed, below a folder that is named by the UUID of a study. Each folder is opened
without following links, and what is in it is looked at and removed relative to the open folder, so that no link, also
one that appears meanwhile, leads out of it. What is gone already was removed by another process: nothing is locked,
and two may do this at once. A file that its owner may not write stays: `chmod a-w FILE` keeps it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from .folder import FileKind, parse_name, run_of

_CURVES: Final = "tensorboard"
_TEXTS: Final = re.compile(r"^(attempt-\d+\.log|metrics\.jsonl|\.metrics\.jsonl\.tmp)$", re.ASCII)
_EVENTS: Final = re.compile(r"^events\.out\.tfevents\.", re.ASCII)
_NUMBER: Final = re.compile(r"^\d{1,18}$", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of ours in the folder of a trial."""

    name: str
    """Within that folder, such as `tensorboard/events.out.tfevents.1`."""
    bytes: int
    kind: FileKind
    attempt: int | None
    """Which attempt wrote it; None where the name does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """The folder of a trial."""

    trial_id: int
    files: tuple[StoredFile, ...]
    """Those that are ours by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStudy:
    """The folder of a study."""

    uuid: UUID
    trials: tuple[StoredTrial, ...]

    @property
    def bytes(self) -> int:
        """Of all files that are ours."""
        return sum(file.bytes for trial in self.trials for file in trial.files)


@dataclass(slots=True)
class Removed:
    """What was removed, and what was not although it should have been."""

    files: int = 0
    bytes: int = 0
    left: list[str] = field(default_factory=list)
    """A sentence for each thing that stays."""


def stored_studies(root: Path) -> list[StoredStudy]:
    """Return what is in a folder of checkpoints, by UUID; nothing of what is not named by the UUID of a study.

    Raises:
        OSError: `root` exists and cannot be read.
    """
    try:
        with _opened(os.fspath(root), None, follow=True) as folder:
            names = sorted(_folders(folder))
            return [_study(folder, name, UUID(name)) for name in names if _is_uuid(name)]
    except FileNotFoundError:
        return []


def earlier_studies(root: Path) -> list[str]:
    """Return the folders that releases up to 0.2.0 named by the number of a study: whose they are is not known."""
    try:
        return sorted(entry.name for entry in os.scandir(root) if _NUMBER.match(entry.name) and _is_folder(entry))
    except OSError:
        return []


def remove_files(root: Path, study: UUID, trial_id: int, names: Iterable[str]) -> Removed:
    """Remove files of ours from the folder of a trial, which stays; names that are not ours are refused.

    Raises:
        ValueError: a name is not one that we give.
    """
    removed = Removed()
    wanted = list(names)
    for name in wanted:
        if _described(name, 0, study) is None:
            raise ValueError(f"{name!r} is not the name of a file of a trial")
    place = root / str(study) / str(trial_id)
    with (
        _reporting(removed, place),
        _opened(os.fspath(root), None, follow=True) as top,
        _opened(str(study), top) as folder,
        _opened(str(trial_id), folder) as own,
    ):
        _unlink_all(own, wanted, place, removed)
    return removed


def remove_study(root: Path, study: UUID) -> Removed:
    """Remove all files of ours of a study, then its folders where nothing else is in them."""
    removed = Removed()
    place = root / str(study)
    with _reporting(removed, place), _opened(os.fspath(root), None, follow=True) as top:
        with _opened(str(study), top) as folder:
            for name in sorted(os.listdir(folder)):
                if _NUMBER.match(name):
                    _remove_trial(folder, study, name, removed, place / name)
                else:
                    removed.left.append(_not_ours(place / name))
        _rmdir(str(study), top)
    return removed


def _remove_trial(folder: int, study: UUID, name: str, removed: Removed, place: Path) -> None:
    with _reporting(removed, place), _opened(name, folder) as own:
        tried = [file.name for file in _files(own, study)]
        _unlink_all(own, tried, place, removed)
        _rmdir(_CURVES, own)
        removed.left += [_not_ours(place / other) for other in sorted(os.listdir(own)) if other not in tried]
    _rmdir(name, folder)


def _not_ours(path: Path) -> str:
    return f"{path} stays: it is not one of our files"


def _unlink_all(own: int, names: Iterable[str], place: Path, removed: Removed) -> None:
    for name in names:
        inner, _, base = name.rpartition("/")
        with _reporting(removed, place / name):
            if not inner:
                _unlink(own, base, place / name, removed)
                continue
            with _opened(inner, own) as folder:
                _unlink(folder, base, place / name, removed)


def _unlink(folder: int, name: str, path: Path, removed: Removed) -> None:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        removed.left.append(f"{path} stays: it is a link, a folder or a device")
    elif not found.st_mode & stat.S_IWUSR:
        removed.left.append(f"{path} stays: it is read-only")
    else:
        os.unlink(name, dir_fd=folder)
        removed.files += 1
        removed.bytes += found.st_size


def _rmdir(name: str, folder: int) -> None:
    """Remove a folder if nothing is in it."""
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError:  # not empty, not there, or not ours to remove: what is in it has been reported
        return


@contextmanager
def _reporting(removed: Removed, path: Path) -> Iterator[None]:
    """Turn what the system refuses into a sentence; what is gone already needs none."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        removed.left.append(f"{path} stays: {error.strerror or error}")


@contextmanager
def _opened(name: str, parent: int | None, *, follow: bool = False) -> Iterator[int]:
    """Open a folder; of its last part no link is followed, unless `follow` says so."""
    flags = os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW)
    folder = os.open(name, flags, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


def _study(top: int, name: str, uuid: UUID) -> StoredStudy:
    trials: list[StoredTrial] = []
    # What is removed meanwhile, or cannot be read, is left out.
    with suppress(OSError), _opened(name, top) as folder:
        for found in sorted((one for one in _folders(folder) if _NUMBER.match(one)), key=int):
            with suppress(OSError), _opened(found, folder) as own:
                trials.append(StoredTrial(trial_id=int(found), files=tuple(_files(own, uuid))))
    return StoredStudy(uuid=uuid, trials=tuple(trials))


def _files(own: int, study: UUID) -> Iterator[StoredFile]:
    """Yield our files in the opened folder of a trial, by name."""
    yield from _files_in(own, study, prefix="")
    try:
        with _opened(_CURVES, own) as folder:
            yield from _files_in(folder, study, prefix=f"{_CURVES}/")
    except OSError:  # there is none
        return


def _files_in(folder: int, study: UUID, *, prefix: str) -> Iterator[StoredFile]:
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if entry.is_file(follow_symlinks=False)), key=lambda e: e.name)
    for entry in found:
        try:
            size = os.stat(entry.name, dir_fd=folder, follow_symlinks=False).st_size
        except OSError:
            continue
        described = _described(prefix + entry.name, size, study)
        if described is not None:
            yield described


def _described(name: str, size: int, study: UUID) -> StoredFile | None:
    """Return what a name says, None if it is not one that we give to files of this study."""
    inner, _, base = name.rpartition("/")
    if inner:
        is_ours = inner == _CURVES and _EVENTS.match(base) is not None
        return StoredFile(name=name, bytes=size, kind=FileKind.RECORD, attempt=None) if is_ours else None
    if _TEXTS.match(base):
        return StoredFile(name=name, bytes=size, kind=FileKind.RECORD, attempt=None)
    parsed = parse_name(base)
    if parsed is None or parsed.run not in ("", run_of(study)):
        return None
    return StoredFile(name=name, bytes=size, kind=parsed.kind, attempt=parsed.attempt)


def _folders(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if _is_folder(entry)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
