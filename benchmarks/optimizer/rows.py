"""Finished runs on disk: one JSON object per line, a file for each protocol and method.

A line is appended by a single write, so that a killed run leaves whole lines and at most one torn last line, which is
skipped when read. A run that has a row is not run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

RESULTS: Final = Path(__file__).with_name("results")


class Run(NamedTuple):
    """What identifies a run."""

    protocol: str
    problem: str
    method: str
    seed: int
    scramble: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finished run: what was run, by which code, and what came out."""

    run: Run
    version: str
    """Of the method: rows of different versions are never mixed."""
    commit: str = ""
    """Of the checkout that ran it."""
    trials: int
    cpu_seconds: float
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the protocol measured; see `protocols`."""


class Rows:
    """The rows of a folder."""

    def __init__(self, folder: Path = RESULTS) -> None:
        self._folder = folder

    def append(self, row: Row) -> None:
        """Add a row, durably, in one write."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{row.run.protocol}-{row.run.method}.jsonl"
        fields = asdict(row)
        line = json.dumps({**row.run._asdict(), **{key: fields[key] for key in fields if key != "run"}})
        start = "\n" if _is_torn(path) else ""
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, f"{start}{line}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self) -> list[Row]:
        """Return every whole row, in the order of the files' names and lines."""
        return [row for path in sorted(self._folder.glob("*.jsonl")) for row in _read(path)]


def newest(rows: Iterable[Row]) -> dict[Run, Row]:
    """Keep the last row of every run, and only those of the version that the method's last row is from.

    Rows of different versions of a method are never mixed: a figure would describe no code that ever existed.
    """
    listed = list(rows)
    versions = {(row.run.protocol, row.run.method): row.version for row in listed}
    return {row.run: row for row in listed if row.version == versions[row.run.protocol, row.run.method]}


def _read(path: Path) -> Iterator[Row]:
    for line in path.read_text().splitlines():
        try:
            raw = json.loads(line)
        except json.JSONDecodeError:
            continue  # torn by a kill
        run = Run(*(raw.pop(name) for name in Run._fields))
        yield Row(run=run, **raw)


def _is_torn(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
