"""Measuring all videos of a data set in parallel, remembering what is already known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from .decode import measure_video
from .index import Measurement
from .parallel import in_threads
from .progress import Progress

_MEMORY_FORMAT = 1


class Measurements:
    """Results of `measure_video` kept in a file, so that a scan goes on where it was killed.

    A result counts as long as the video's size and modification time stay as they were. Each is one
    line of JSON, appended as soon as it is known; a line cut by a crash is ignored. Only one process may write
    at a time: hold a lock around `measure_all`.
    """

    def __init__(self, path: Path | None) -> None:
        """Read what `path` remembers; with None, remember within this object only."""
        self._path = path
        self._lock = Lock()
        self._known: dict[str, Measurement] = {}
        if path is not None and path.exists():
            for line in path.read_bytes().splitlines():
                self._read(line)

    def _read(self, line: bytes) -> None:
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
        with self._lock:
            self._known[key] = measured
            if self._path is not None:
                with self._path.open("ab") as file:
                    # The empty line ends one that a killed process left unfinished.
                    file.write(b"\n" + json.dumps(entry).encode() + b"\n")


def measure_all(
    root: Path,
    paths: Iterable[str],
    memory: Measurements,
    *,
    progress: Progress | None = None,
) -> dict[str, Measurement]:
    """Return what each video below `root` holds; decodes only those `memory` does not know."""
    keys = {path: _key(root, path) for path in paths}
    found: dict[str, Measurement] = {}
    unknown = []
    for path, key in keys.items():
        known = memory.get(key) if key is not None else None
        if known is None:
            unknown.append(path)
        else:
            found[path] = known

    def measure(path: str) -> Measurement:
        measured = measure_video(root / path)
        key = keys[path]
        if key is not None:
            memory.put(key, measured)
        return measured

    for done, measured in enumerate(in_threads(measure, unknown), start=1):
        found[unknown[done - 1]] = measured
        if progress is not None:
            progress("scan", done, len(unknown))
    return found


def _key(root: Path, path: str) -> str | None:
    """Return what identifies a file's content without reading it, or None for no file."""
    try:
        stat = (root / path).stat()
    except OSError:
        return None
    return f"{path}|{stat.st_size}|{stat.st_mtime_ns}"
