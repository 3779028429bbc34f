"""The copy of a data set that is at an address: scanned and prepared like any folder, and kept up to date.

    <cache>/remote/<key>/files/                  the files, as they are at the address
    <cache>/remote/<key>/copied.jsonl            which version of each was copied, a line for each
    <cache>/remote/<key>/part/                   files that are being copied
    <cache>/remote/<key>/lock                    held by the process that copies

A file comes into `files` once it is complete. What was copied is asked for again only if the storage says that it has
changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from ..errors import CacheError, RemoteError
from ..parallel import in_threads
from ..progress import Progress
from ..specs import DatasetSpec
from ..specs.place import is_remote
from .storage import RemoteFile, Storage, key_of

_log = logging.getLogger(__name__)
_AT_ONCE = 16
"""Files that are copied at the same time."""
_SPARE_BYTES = 1 << 28


def local_root(root: str | Path, cache_dir: Path, *, progress: Progress | None = None) -> Path:
    """Return the folder of a data set: `root`, or the copy of what is there, brought up to date.

    Safe to call from several processes at once: one copies, the others wait for it. Killed, it continues where it was.
    If the storage does not answer and all was copied before, that is used, with a warning.

    Raises:
        DatasetError: see `storage.Storage`.
        CacheError: the copy cannot be written.
    """
    root = str(root)
    if not is_remote(root):
        return Path(root).expanduser()
    copy = _Copy(root, cache_dir.expanduser() / "remote" / key_of(root))
    try:
        copy.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(copy.folder / "lock"):
            copy.update(progress)
    except OSError as error:
        raise CacheError(f"{copy.folder} cannot be filled with {root}: {error.strerror or error}") from error
    return copy.files


def local_spec(spec: DatasetSpec, cache_dir: Path, *, progress: Progress | None = None) -> DatasetSpec:
    """Return a specification whose root is a folder, see `local_root`."""
    if not is_remote(str(spec.root)):
        return spec
    return spec.model_copy(update={"root": str(local_root(str(spec.root), cache_dir, progress=progress))})


class _Copy:
    """The copy of one data set."""

    def __init__(self, root: str, folder: Path) -> None:
        self.root, self.folder, self.files = root, folder, folder / "files"
        self._list, self._part, self._whole = folder / "copied.jsonl", folder / "part", folder / "whole"

    def update(self, progress: Progress | None) -> None:
        storage = Storage(self.root)
        try:
            found = storage.files()
        except RemoteError as error:
            if not self._whole.exists():
                raise
            _log.warning("%s; the copy in %s is used, which may be older", error, self.files)
            return
        copied = self._copied()
        lacking = [file for file in found if not self._has(file, copied)]
        gone = set(copied) - {file.name for file in found}
        if lacking or gone:
            self._whole.unlink(missing_ok=True)
        self._remove(gone)
        shutil.rmtree(self._part, ignore_errors=True)
        if lacking:
            self._require_room(lacking)
            self._part.mkdir()
            work = in_threads(lambda file: self._take(storage, file), lacking, at_once=_AT_ONCE)
            for done, file in enumerate(work, start=1):
                self._note(file.name, file.version)
                if progress is not None:
                    progress("copy", done, len(lacking))
            shutil.rmtree(self._part)
        self._whole.touch()

    def _copied(self) -> dict[str, str]:
        """Return the versions of the files that were copied; a line that a kill left unfinished is ignored."""
        copied: dict[str, str] = {}
        for line in self._list.read_bytes().splitlines() if self._list.exists() else ():
            try:
                name, version = json.loads(line)
            except (ValueError, TypeError):
                continue
            if version is None:
                copied.pop(name, None)
            else:
                copied[name] = version
        return copied

    def _note(self, name: str, version: str | None) -> None:
        with self._list.open("ab") as file:
            # The newline in front ends a line that a killed process left unfinished.
            file.write(b"\n" + json.dumps([name, version]).encode() + b"\n")

    def _has(self, file: RemoteFile, copied: dict[str, str]) -> bool:
        try:
            size = (self.files / file.name).stat().st_size
        except OSError:
            return False
        return copied.get(file.name) == file.version and file.size in (-1, size)

    def _take(self, storage: Storage, file: RemoteFile) -> RemoteFile:
        part = self._part / hashlib.sha256(file.name.encode()).hexdigest()[:32]
        storage.copy(file, part)
        place = self.files / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
        return file

    def _remove(self, gone: set[str]) -> None:
        for name in sorted(gone):
            (self.files / name).unlink(missing_ok=True)
            self._note(name, None)
        for folder, _, _ in os.walk(self.files, topdown=False) if gone else ():
            if not os.listdir(folder) and Path(folder) != self.files:
                os.rmdir(folder)

    def _require_room(self, files: Sequence[RemoteFile]) -> None:
        needed, free = sum(max(0, file.size) for file in files), shutil.disk_usage(self.folder).free
        if needed + _SPARE_BYTES > free:
            raise CacheError(
                f"{self.root} holds {needed / 1e9:.2f} GB that are not in {self.folder} yet, where {free / 1e9:.2f} GB "
                "are free: make room there, or choose another HPO_HOME"
            )
