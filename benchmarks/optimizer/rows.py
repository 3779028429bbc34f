"""Finished runs on disk: one JSON object per line, a file for each protocol and method.

A line is appended by a single write, so a killed run leaves whole lines and at most one incomplete last line, which is
skipped when reading. A run that has a row is not run again.

New rows go to `PROTOCOL-METHOD.jsonl`. `pack` moves them behind the older ones into `PROTOCOL-METHOD.jsonl.gz`, which
is what git holds: a third of the size. Both are read as one file.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

RESULTS: Final = Path(__file__).with_name("results")


class Run(NamedTuple):
    """The identity of a run."""

    protocol: str
    problem: str
    method: str
    seed: int
    scramble: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finished run: its identity, the version of the code, and its results."""

    run: Run
    version: str
    """Version of the method: rows of different versions are never mixed."""
    commit: str = ""
    """Commit of the checkout that ran it."""
    trials: int
    cpu_seconds: float
    data: Mapping[str, Any] = field(default_factory=dict)
    """The results of the protocol; see `protocols`."""


class Rows:
    """The rows of a folder."""

    def __init__(self, folder: Path = RESULTS) -> None:
        self._folder = folder

    def append(self, row: Row) -> None:
        """Append a row durably, in one write."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{row.run.protocol}-{row.run.method}.jsonl"
        fields = asdict(row)
        line = json.dumps({**row.run._asdict(), **{key: fields[key] for key in fields if key != "run"}})
        start = "\n" if _ends_incomplete(path) else ""
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, f"{start}{line}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self) -> list[Row]:
        """Return every whole row, in the order of the files' names and lines; packed rows are older than plain ones."""
        return [row for name in self._names() for row in _rows(self._packed(name) + self._plain(name))]

    def pack(self) -> list[str]:
        """Move the rows of plain files into the compressed ones; return the names of the files that were moved.

        A kill between the two steps leaves rows twice, which changes nothing: see `newest`.
        """
        moved = [name for name in self._names() if (self._folder / name).exists()]
        for name in moved:
            whole = [*self._packed(name), *(line for line in self._plain(name) if _is_whole(line))]
            packed = self._folder / f"{name}.gz"
            unfinished = packed.with_suffix(".new")
            # No time in the file: the same rows are the same bytes.
            unfinished.write_bytes(gzip.compress("".join(f"{line}\n" for line in whole).encode(), mtime=0))
            unfinished.replace(packed)
            (self._folder / name).unlink()
        return moved

    def _names(self) -> list[str]:
        found = [*self._folder.glob("*.jsonl"), *self._folder.glob("*.jsonl.gz")]
        return sorted({path.name.removesuffix(".gz") for path in found})

    def _packed(self, name: str) -> list[str]:
        path = self._folder / f"{name}.gz"
        return gzip.decompress(path.read_bytes()).decode().splitlines() if path.exists() else []

    def _plain(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text().splitlines() if path.exists() else []


def newest(rows: Iterable[Row]) -> dict[Run, Row]:
    """Return the last row of every run, limited to the version of the method's last row.

    Rows of different versions of a method are never mixed, because such a figure would not describe any actual code.
    """
    listed = list(rows)
    versions = {(row.run.protocol, row.run.method): row.version for row in listed}
    return {row.run: row for row in listed if row.version == versions[row.run.protocol, row.run.method]}


def _rows(lines: Iterable[str]) -> Iterator[Row]:
    for line in lines:
        if _is_whole(line):
            raw = json.loads(line)
            run = Run(*(raw.pop(name) for name in Run._fields))
            yield Row(run=run, **raw)


def _is_whole(line: str) -> bool:
    """Return whether a line is complete; a kill may leave the last one incomplete."""
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _ends_incomplete(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
