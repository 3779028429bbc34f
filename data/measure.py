"""Measuring all videos of a data set in parallel, remembering what is already known."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from filelock import FileLock

from .decode import measure_video
from .index import Measurement
from .parallel import in_threads
from .progress import Progress

_MEMORY_FORMAT = 1


class Measurements:
    """Results of `measure_video`, kept in a file so that a scan goes on where it was killed.

    A result counts as long as the video's size and modification time stay as they were. Each is
    one line of JSON, appended as soon as it is known; a line cut by a crash is ignored.
    """

    def __init__(self, path: Path | None) -> None:
        """Read what `path` remembers; with None, remember within this object only."""
        self._path = path
        self._write_lock = Lock()
        self._known: dict[str, Measurement] = {}
        self.read()

    def read(self) -> None:
        """Read the file again, for what another process has added."""
        if self._path is not None and self._path.exists():
            for line in self._path.read_bytes().splitlines():
                self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if entry["format"] == _MEMORY_FORMAT:
                self._known[entry["key"]] = Measurement(**entry["measured"])
        except (ValueError, KeyError, TypeError):
            return  # the line was being written when its process was killed

    def get(self, key: str) -> Measurement | None:
        return self._known.get(key)

    def put(self, key: str, measured: Measurement) -> None:
        entry = {"format": _MEMORY_FORMAT, "key": key, "measured": asdict(measured)}
        with self._write_lock:
            self._known[key] = measured
            if self._path is not None:
                with self._path.open("ab") as file:
                    # The empty line ends one that a killed process left unfinished.
                    file.write(b"\n" + json.dumps(entry).encode() + b"\n")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the right to write, which one process has at a time."""
        if self._path is None:
            yield
            return
        with FileLock(self._path.with_suffix(".lock")):
            self.read()
            yield


def measure_all(
    root: Path,
    paths: Iterable[str],
    memory: Measurements,
    *,
    progress: Progress | None = None,
) -> dict[str, Measurement]:
    """Return what each video below `root` holds; decodes only those `memory` does not know.

    Where everything is known nothing is locked or written. Else one process decodes and those that
    ask at the same time wait for what it finds.
    """
    keys = {path: _key(root, path) for path in paths}
    found = {path: measure_video(root / path) for path, key in keys.items() if key is None}
    if _recall(keys, memory, found):
        with memory.exclusive():
            unknown = _recall(keys, memory, found)
            for done, measured in enumerate(in_threads(lambda p: measure_video(root / p), unknown)):
                path = unknown[done]
                found[path] = measured
                memory.put(keys[path] or path, measured)
                if progress is not None:
                    progress("scan", done + 1, len(unknown))
    return found


def _recall(keys: dict[str, str | None], memory: Measurements, found: dict[str, Measurement]) -> list[str]:
    """Add to `found` what is remembered and return the paths that are still unknown."""
    unknown = []
    for path, key in keys.items():
        if path in found or key is None:
            continue
        known = memory.get(key)
        if known is None:
            unknown.append(path)
        else:
            found[path] = known
    return unknown


def _key(root: Path, path: str) -> str | None:
    """Return what identifies a file's content without reading it, or None for no file."""
    try:
        stat = (root / path).stat()
    except OSError:
        return None
    return f"{path}|{stat.st_size}|{stat.st_mtime_ns}"
