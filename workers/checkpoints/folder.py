"""The folder of one trial: names, atomic writing and reading of its checkpoint files. Needs no torch.

    checkpoint_dir/<UUID of the study>/<trial_id>/
        a0001-e0003-b0000000-r<run>-<digest>.pt   attempt 1, 3 epochs done, batch 0 of the next; the newest two are kept
        final-a0001-r<run>-<digest>.pt            the weights of a finished trial
        best-e0003-a0001-r<run>-<digest>.pt       the weights of its best epoch, where they are kept
        epoch-e0010-a0001-r<run>-<digest>.pt      the weights of every n-th epoch, where the study wants them
        metrics.jsonl                             the learning curve, one line per epoch
        tensorboard/                              the same for TensorBoard, where the worker was asked for it
        attempt-0001.log                          what the child printed

The run is the beginning of the study's UUID, or drawn anew for a training outside a study. Nothing but files of the
folder's own run is ever removed: others may be a person's, or those of another training. Up to release 0.2.0 folders
were called by the study's number, and names had no run.

The digest of the content is part of the name, so that one rename makes a file appear complete and checkable: PyTorch
itself does not notice flipped bits.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import IO, Protocol, Self
from uuid import UUID

from ..errors import CheckpointError, CheckpointWriteError
from .shared import make_folder, share

RESUME_POINTS_KEPT = 2
_END = r"(?:-r(?P<run>[0-9a-f]{12}))?-(?P<digest>[0-9a-f]{16})\.pt$"
_RESUME = re.compile(rf"^a(?P<attempt>\d+)-e(?P<epoch>\d+)-b(?P<batch>\d+){_END}", re.ASCII)
_FINAL = re.compile(rf"^final-a(?P<attempt>\d+){_END}", re.ASCII)
_BEST = re.compile(rf"^best-e(?P<epoch>\d+)-a(?P<attempt>\d+){_END}", re.ASCII)
_NTH = re.compile(rf"^epoch-e(?P<epoch>\d+)-a(?P<attempt>\d+){_END}", re.ASCII)
_PARTIAL = re.compile(
    r"^\.(?:a(?P<attempt>\d+)-e\d+-b\d+|(?:final|best-e\d+|epoch-e\d+)-a(?P<last>\d+))"
    r"(?:-r(?P<run>[0-9a-f]{12}))?\.\d+\.tmp$",
    re.ASCII,
)
_RUN_DIGITS = 12
DIGEST_BYTES = 8
"""Of the BLAKE2b digest in a name."""


class FileKind(StrEnum):
    """What a file in the folder of a trial is."""

    RESUME = "resume"
    """A state to continue from."""
    FINAL = "final"
    """The weights of the end."""
    BEST = "best"
    NTH = "nth"
    """The weights of an epoch that were to stay."""
    PARTIAL = "partial"
    """A file that is being written, or that a process was killed while writing."""
    RECORD = "record"
    """A log or a curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileName:
    """What the name of a checkpoint says."""

    kind: FileKind
    attempt: int
    run: str
    """The run that wrote it; empty for those of earlier releases."""
    epoch: int | None = None
    """Epochs done, where the name says it."""


class Writable(Protocol):
    """What a checkpoint is written to."""

    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> None: ...


Writer = Callable[[Writable], None]


@dataclass(frozen=True, slots=True, order=True)
class ResumePoint:
    """A checkpoint to continue from. Orders by attempt first: what an older attempt still writes is not newer."""

    attempt: int
    epoch: int
    """Epochs done."""
    batch: int
    """Batches done of the epoch after them."""
    path: Path
    run: str = ""
    """The run that wrote it; empty for those of earlier releases."""

    @classmethod
    def parse(cls, path: Path) -> Self | None:
        """Return what the name says; None if it is not that of a resume point."""
        found = _RESUME.match(path.name)
        if found is None:
            return None
        return cls(int(found["attempt"]), int(found["epoch"]), int(found["batch"]), path, found["run"] or "")


def run_of(owner: UUID) -> str:
    """Return the run in the names of checkpoints that belong to `owner`: a study, or one training outside of any."""
    return owner.hex[:_RUN_DIGITS]


def run_in(name: str) -> str | None:
    """Return the run in the name of a checkpoint, empty for those of earlier releases; None if it is not ours."""
    found = _parsed(name)
    return None if found is None else found["run"] or ""


class _DigestingFile:
    """What `torch.save` needs of a file; hashes what is written and remembers why writing failed.

    PyTorch reports a failed write as a RuntimeError about its zip writer, which hides a full disk.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = _hasher()
        self._failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self._failure = error
            raise
        self._hash.update(data)
        return written

    def flush(self) -> None:
        self._file.flush()

    def write_through(self, write: Writer) -> str:
        """Call `write` with this file and return the digest of what it wrote."""
        try:
            write(self)
        except RuntimeError:
            if self._failure is not None:
                raise self._failure from None
            raise
        return self._hash.hexdigest()


class TrialFolder:
    """The checkpoint files of one trial, as one attempt sees and writes them."""

    def __init__(self, path: Path, *, attempt: int, run: str = "") -> None:
        """`run` is part of the names of what is written here, and the only one of which anything is removed."""
        self.path = path
        self.attempt = attempt
        self.run = run

    @classmethod
    def of(cls, checkpoint_dir: Path, *, study: UUID | int, trial_id: int, attempt: int, run: str) -> Self:
        """Return the folder of a trial: built of ids alone, never of text that a person chose.

        `study` is the study's UUID; its number where the API is of an earlier release.
        """
        return cls(checkpoint_dir / str(study) / str(int(trial_id)), attempt=attempt, run=run)

    @property
    def log(self) -> Path:
        """Where the training process of this attempt prints to."""
        return self.path / f"attempt-{self.attempt:04d}.log"

    def resume_points(self) -> list[ResumePoint]:
        """Return the checkpoints of the run to continue from, newest first."""
        return [point for point in self.resume_points_of_all() if point.run == self.run]

    def resume_points_of_all(self) -> list[ResumePoint]:
        """Return the checkpoints of every run in the folder, newest first within one run."""
        found = (ResumePoint.parse(path) for path in self._files())
        return sorted((point for point in found if point is not None), reverse=True)

    def epoch_ends(self) -> list[ResumePoint]:
        """Return those of the run that were written between two epochs, newest first."""
        return [point for point in self.resume_points() if point.batch == 0]

    def write_resume_point(self, write: Writer, *, epoch: int, batch: int) -> Path:
        """Write a checkpoint through `write` and keep the newest two, and the newest of an epoch's end.

        Raises:
            CheckpointWriteError: the disk is full, or the folder cannot be written.
        """
        path = self._write(write, f"a{self.attempt:04d}-e{epoch:04d}-b{batch:07d}")
        # A stopped trial's weights are those of its last whole epoch, so that one stays even behind two others.
        kept = {point.path for point in [*self.resume_points()[:RESUME_POINTS_KEPT], *self.epoch_ends()[:1]]}
        self._remove(point.path for point in self.resume_points() if point.path not in kept)
        return path

    def write_final(self, write: Writer) -> Path:
        """Write the final weights and remove those of earlier attempts of the run.

        Raises:
            CheckpointWriteError: the disk is full, or the folder cannot be written.
        """
        path = self._write(write, f"final-a{self.attempt:04d}")
        self._remove(other for other in self._own(_FINAL) if other != path)
        return path

    def write_best(self, write: Writer, *, epoch: int) -> Path:
        """Write the weights of the best epoch so far and remove those of earlier ones of the run.

        Raises:
            CheckpointWriteError: the disk is full, or the folder cannot be written.
        """
        path = self._write(write, f"best-e{epoch:04d}-a{self.attempt:04d}")
        self._remove(other for other in self._own(_BEST) if other != path)
        return path

    def write_nth(self, write: Writer, *, epoch: int) -> Path:
        """Write the weights of an epoch that are to stay, and remove those that an earlier attempt of the run wrote.

        Raises:
            CheckpointWriteError: the disk is full, or the folder cannot be written.
        """
        stem = f"epoch-e{epoch:04d}-a"
        path = self._write(write, f"{stem}{self.attempt:04d}")
        self._remove(other for other in self._own(_NTH) if other.name.startswith(stem) and other != path)
        return path

    def remove_resume_points(self) -> None:
        """Remove what a finished trial does not need."""
        self._remove(point.path for point in self.resume_points())

    def _own(self, names: re.Pattern[str]) -> Iterator[Path]:
        """Yield the files of the run whose names match."""
        for path in self._files():
            found = names.match(path.name)
            if found is not None and (found["run"] or "") == self.run:
                yield path

    def _files(self) -> list[Path]:
        try:
            return list(self.path.iterdir())
        except FileNotFoundError:
            return []

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            # In a folder with the sticky bit, files of another user's worker stay; that one removes them.
            with contextlib.suppress(PermissionError):
                path.unlink(missing_ok=True)

    def _write(self, write: Writer, stem: str) -> Path:
        stem = f"{stem}-r{self.run}" if self.run else stem
        aside = self.path / f".{stem}.{os.getpid()}.tmp"
        try:
            make_folder(self.path)
            self._remove(self.path.glob(f".{stem}.*.tmp"))  # from a process that was killed while writing
            with aside.open("wb") as file:
                digest = _DigestingFile(file).write_through(write)
                file.flush()
                os.fsync(file.fileno())
            share(aside)
            path = self.path / f"{stem}-{digest}.pt"
            aside.rename(path)
            _sync_folder(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the folder"
            raise CheckpointWriteError(
                f"the checkpoint {self.path / stem} cannot be written ({error.strerror or error}); {hint}"
            ) from error
        return path


def parse_name(name: str) -> FileName | None:
    """Return what the name of a checkpoint, or of a partial one, says; None if it is not one of ours."""
    kinds = {FileKind.RESUME: _RESUME, FileKind.FINAL: _FINAL, FileKind.BEST: _BEST, FileKind.NTH: _NTH}
    for kind, pattern in kinds.items():
        if (found := pattern.match(name)) is not None:
            epoch = found.groupdict().get("epoch")
            return FileName(
                kind=kind,
                attempt=int(found["attempt"]),
                run=found["run"] or "",
                epoch=None if epoch is None else int(epoch),
            )
    if (found := _PARTIAL.match(name)) is not None:
        return FileName(kind=FileKind.PARTIAL, attempt=int(found["attempt"] or found["last"]), run=found["run"] or "")
    return None


def digest_in(name: str) -> str | None:
    """Return the digest in the name of a checkpoint, as hexadecimal digits; None if it is not one of ours."""
    found = _parsed(name)
    return None if found is None else found["digest"]


def content_digest(path: Path) -> str:
    """Return the digest of a file that the name of its checkpoint has, whatever the file is called.

    Raises:
        CheckpointError: it is a pipe, a device or a folder, or cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, _hasher).hexdigest()
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error.strerror})") from error


def open_file(path: Path, *, follow: bool = True) -> BufferedReader:
    """Open a checkpoint for reading; without `follow` a link in its place is refused.

    Raises:
        CheckpointError: it is a pipe, a device or a folder.
        OSError: it cannot be opened.
    """
    opener = _without_waiting if follow else _without_following
    file = open(path, "rb", opener=opener)  # noqa: SIM115 - the caller closes it; Path has no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise CheckpointError(f"{path} is a pipe or a device, not a checkpoint")
    return file


def _without_waiting(path: str, flags: int) -> int:
    """Open without waiting for another program to write into a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _without_following(path: str, flags: int) -> int:
    """Open without waiting, and no link."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def verify(path: Path) -> None:
    """Check the content against the digest in the file's name; a file without one is accepted as it is.

    Raises:
        CheckpointError: the file cannot be read, or is torn or altered.
    """
    found = _parsed(path.name)
    try:
        with open_file(path) as file:
            actual = hashlib.file_digest(file, _hasher).hexdigest() if found else None
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error.strerror})") from error
    if found and actual != found["digest"]:
        raise CheckpointError(f"the checkpoint {path} is damaged: its content does not match its name")


def _parsed(name: str) -> re.Match[str] | None:
    return _RESUME.match(name) or _FINAL.match(name) or _BEST.match(name) or _NTH.match(name)


def _hasher() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: the names in a folder are written to disk separately from its files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
