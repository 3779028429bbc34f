"""The folder of one trial: names, atomic writing and reading of its checkpoint files. Needs no torch.

    checkpoint_dir/<study_id>/<trial_id>/
        a0001-e0003-b0000000-<digest>.pt   attempt 1, 3 epochs done, batch 0 of the next; the newest two are kept
        final-a0001-<digest>.pt            the weights of a finished trial
        attempt-0001.log                   what the child printed

The digest of the content is part of the name, so that one rename makes a file appear complete and checkable: PyTorch
itself does not notice flipped bits.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

from ..errors import CheckpointError, CheckpointWriteError

RESUME_POINTS_KEPT = 2
_DIGEST = r"(?P<digest>[0-9a-f]{16})"
_RESUME = re.compile(rf"^a(?P<attempt>\d+)-e(?P<epoch>\d+)-b(?P<batch>\d+)-{_DIGEST}\.pt$")
_FINAL = re.compile(rf"^final-a(?P<attempt>\d+)-{_DIGEST}\.pt$")


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

    @classmethod
    def parse(cls, path: Path) -> Self | None:
        """Return what the name says; None if it is not that of a resume point."""
        found = _RESUME.match(path.name)
        return cls(int(found["attempt"]), int(found["epoch"]), int(found["batch"]), path) if found else None


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

    def __init__(self, path: Path, *, attempt: int) -> None:
        self.path = path
        self.attempt = attempt

    @classmethod
    def of(cls, checkpoint_dir: Path, *, study_id: int, trial_id: int, attempt: int) -> Self:
        """Return the folder of a trial: built of numbers alone, never of text that a person chose."""
        return cls(checkpoint_dir / str(int(study_id)) / str(int(trial_id)), attempt=attempt)

    @property
    def log(self) -> Path:
        """Where the training process of this attempt prints to."""
        return self.path / f"attempt-{self.attempt:04d}.log"

    def resume_points(self) -> list[ResumePoint]:
        """Return the checkpoints to continue from, newest first."""
        found = (ResumePoint.parse(path) for path in self._files())
        return sorted((point for point in found if point is not None), reverse=True)

    def epoch_ends(self) -> list[ResumePoint]:
        """Return those that were written between two epochs, newest first."""
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
        """Write the final weights and remove those of earlier attempts.

        Raises:
            CheckpointWriteError: the disk is full, or the folder cannot be written.
        """
        path = self._write(write, f"final-a{self.attempt:04d}")
        self._remove(other for other in self._files() if _FINAL.match(other.name) and other != path)
        return path

    def clear(self) -> None:
        """Remove every checkpoint: a first attempt must not continue from what another run left here."""
        self._remove(path for path in self._files() if path.suffix in (".pt", ".tmp"))

    def remove_resume_points(self) -> None:
        """Remove what a finished trial does not need."""
        self._remove(point.path for point in self.resume_points())

    def _files(self) -> list[Path]:
        try:
            return list(self.path.iterdir())
        except FileNotFoundError:
            return []

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            path.unlink(missing_ok=True)

    def _write(self, write: Writer, stem: str) -> Path:
        aside = self.path / f".{stem}.{os.getpid()}.tmp"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for left in self.path.glob(f".{stem}.*.tmp"):  # from a process that was killed while writing
                left.unlink(missing_ok=True)
            with aside.open("wb") as file:
                digest = _DigestingFile(file).write_through(write)
                file.flush()
                os.fsync(file.fileno())
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


def verify(path: Path) -> None:
    """Check the content against the digest in the file's name; a file without one is accepted as it is.

    Raises:
        CheckpointError: the file cannot be read, or is torn or altered.
    """
    found = _RESUME.match(path.name) or _FINAL.match(path.name)
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, _hasher).hexdigest() if found else None
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read ({error.strerror})") from error
    if found and actual != found["digest"]:
        raise CheckpointError(f"the checkpoint {path} is damaged: its content does not match its name")


def _hasher() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: the names in a folder are written to disk separately from its files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
