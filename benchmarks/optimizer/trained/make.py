"""Making tables: which trainings are missing, a process on each core, and a line for every result.

A row is appended in one write as soon as its training ends, so a kill loses only the trainings that are running.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hpo.trial import ParamValue

from ..problems.problem import ProblemMissing
from ..problems.trained import identity, read_rows
from .definition import Definition

if TYPE_CHECKING:
    from .training import Trainings

SEEDS: Final = (0, 1)


class TableError(Exception):
    """The folder has a table of this name that was made with other settings."""


class Work(NamedTuple):
    """A training to be done."""

    table: str
    params: Mapping[str, ParamValue]
    seed: int


class Places(NamedTuple):
    """The folders of a run."""

    rows: Path
    """Where `NAME.jsonl` grows."""
    videos: Path
    """Generated videos and prepared frames."""


def make(
    definitions: Sequence[Definition],
    places: Places,
    *,
    command: str,
    workers: int = 1,
    seeds: Sequence[int] = SEEDS,
    limit: int | None = None,
) -> int:
    """Do the trainings that have no row yet, at most `limit`, and return how many were done.

    The first seed of all tables comes first, in an order drawn once, so that unfinished tables cover their grids.

    Raises:
        TableError: a table of the same name was made with other settings.
    """
    missing: list[Work] = []
    places.rows.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=begin_worker) as pool:
        for definition in definitions:
            if _header(places.rows, definition) is None:
                counts = pool.submit(_counts, definition, places.videos).result()
                _append(places.rows / f"{definition.name}.jsonl", _new_header(definition, counts, command))
            missing += _missing(definition, places.rows, seeds)
        by_name = {definition.name: definition for definition in definitions}
        work = iter(sorted(missing, key=_place)[:limit])
        done = 0
        running: dict[Future[dict[str, Any]], Work] = {}
        while True:
            for each in islice(work, workers + 1 - len(running)):
                running[pool.submit(_train, by_name[each.table], places.videos, each)] = each
            if not running:
                return done
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                _append(places.rows / f"{running.pop(future).table}.jsonl", future.result())
                done += 1


def _place(work: Work) -> tuple[int, int]:
    """Return a key that sorts by seed, then as if at random but always alike."""
    return work.seed, zlib.crc32(f"{work.table} {identity(work.params, 0)}".encode())


def _missing(definition: Definition, folder: Path, seeds: Sequence[int]) -> Iterator[Work]:
    _, rows = read_rows(folder, definition.name)
    known = {identity(row["params"], row["seed"]) for row in rows}
    for params in definition.configurations():
        for seed in seeds:
            if identity(params, seed) not in known:
                yield Work(definition.name, params, seed)


def _header(folder: Path, definition: Definition) -> dict[str, Any] | None:
    """Return the header of a table that was begun; None if it was not.

    Raises:
        TableError: it was made with other settings.
    """
    try:
        header, _ = read_rows(folder, definition.name)
    except ProblemMissing:
        return None
    wanted = json.loads(json.dumps(definition.described()))
    changed = [key for key, value in wanted.items() if header.get(key) != value]
    if changed:
        raise TableError(
            f"{folder / definition.name}.jsonl was made with other settings ({', '.join(changed)}); "
            "name another folder with --rows, or move that file away"
        )
    return header


def _new_header(definition: Definition, counts: Mapping[str, Any], command: str) -> dict[str, Any]:
    return {
        "table": definition.name,
        **definition.described(),
        **counts,
        "command": command,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{_processor()}, {os.cpu_count()} cores, one thread each",
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _commit() -> str:
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _append(path: Path, row: Mapping[str, Any]) -> None:
    text = f"{json.dumps(row, separators=(',', ':'))}\n"
    if path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        text = f"\n{text}"  # after a line that a kill left incomplete
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


_opened: dict[str, Trainings] = {}
"""The data sets of this process, by the names of their tables."""


def begin_worker() -> None:
    """Prepare a process of the pool: quiet about opened test lists, and gone as soon as its parent is."""
    logging.getLogger("data.dataset").setLevel(logging.ERROR)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _trainings(definition: Definition, videos: Path) -> Trainings:
    from .training import Trainings  # imports torch

    if definition.name not in _opened:
        task = definition.task(definition.videos(videos))
        _opened[definition.name] = Trainings(task, cache=videos / "cache", final_views=definition.final_views)
    return _opened[definition.name]


def _counts(definition: Definition, videos: Path) -> dict[str, Any]:
    return _trainings(definition, videos).counts()


def _train(definition: Definition, videos: Path, work: Work) -> dict[str, Any]:
    return _trainings(definition, videos).train(work.params, work.seed)
