"""Running the planned runs that have no row yet."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .latency import METHODS_AT, latency
from .methods import commit, version_of
from .plan import Selection, latency_counts, planned
from .problems import TABLES_FOLDER, Problem, ProblemMissing, load_problem
from .protocols import PROTOCOLS, trials_of
from .rows import Row, Rows, Run

LATENCY_SEED = 0


def run(
    selection: Selection,
    *,
    rows: Rows,
    data: Path,
    tables: Path = TABLES_FOLDER,
    keep_old: bool = False,
    limit: int | None = None,
) -> int:
    """Return the number of runs that failed, after doing the planned runs without a row, at most `limit`.

    `data` is the folder of the surrogates, `tables` that of the tables of trainings.

    A row of an older version of a method counts only with `keep_old`. A failed run is reported on stderr and has no
    row; the others continue.
    """
    done = {(row.run, row.version) for row in rows.read()}
    known = {found for found, _ in done}
    problems: dict[str, Problem | None] = {}
    missing: set[str] = set()
    load = partial(load_problem, data=data, tables=tables)
    failures = begun = 0
    for planned_run in planned(selection):
        present = planned_run in known if keep_old else (planned_run, version_of(planned_run.method)) in done
        problem = None if present else _problem(planned_run, problems, load)
        if present or problem is None or planned_run.method in missing:
            continue
        if begun == limit:
            return failures
        begun += 1
        try:
            failures += not _do_run(planned_run, problem, rows)
        except ProblemMissing as error:
            print(f"left out: {planned_run.method}: {error}", file=sys.stderr)
            missing.add(planned_run.method)
    if limit is None or begun < limit:
        _measure_times(selection, rows, data)
    return failures


def _do_run(planned_run: Run, problem: Problem, rows: Rows) -> bool:
    trials = trials_of(planned_run.protocol, planned_run.method)
    started = _cpu_seconds()
    try:
        found = PROTOCOLS[planned_run.protocol](problem, planned_run.method, planned_run.seed, trials)
    except ProblemMissing:
        raise
    except Exception as error:
        # A peer's library may raise any error; one failed run must not end all others.
        print(f"failed: {_label(planned_run)}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    seconds = round(_cpu_seconds() - started, 2)
    version = version_of(planned_run.method)
    row = Row(run=planned_run, version=version, commit=commit(), trials=trials, cpu_seconds=seconds, data=found)
    rows.append(row)
    print(f"{_label(planned_run)}: {seconds:.1f} CPU s", flush=True)
    return True


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended, such as a peer of its own."""
    return sum(os.times()[:4])


def _measure_times(selection: Selection, rows: Rows, data: Path) -> None:
    """Measure the times of all selected methods together, if any of them has no row."""
    there = {(row.run.method, row.trials, row.version) for row in rows.read() if row.run.protocol == "latency"}
    for count in latency_counts(selection):
        names = [name for name in METHODS_AT[count] if not selection.methods or name in selection.methods]
        if any((name, count, version_of(name)) not in there for name in names):
            _time_rows(load_problem("mixed10", data=data), names, count, rows)


def _time_rows(problem: Problem, names: Sequence[str], count: int, rows: Rows) -> None:
    for name, seconds in latency(problem, names, LATENCY_SEED, count).items():
        found = Run("latency", f"{problem.name}@{count}", name, LATENCY_SEED)
        data = {"seconds": [round(value, 5) for value in seconds], "beside": list(names), "load": os.getloadavg()[0]}
        spent = round(sum(seconds), 2)
        version = version_of(name)
        rows.append(Row(run=found, version=version, commit=commit(), trials=count, cpu_seconds=spent, data=data))
        print(f"latency {name} at {count}: {sum(seconds) / len(seconds):.4f} CPU s", flush=True)


def _problem(planned_run: Run, known: dict[str, Problem | None], load: Callable[..., Problem]) -> Problem | None:
    """Return a problem, loaded once; None, reported once, if its data are missing."""
    name = planned_run.problem
    if name not in known:
        try:
            known[name] = load(name, scramble=planned_run.scramble)
        except ProblemMissing as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
            known[name] = None
    return known[name]


def _label(found: Run) -> str:
    scramble = "" if found.scramble is None else f" scrambled by {found.scramble}"
    return f"{found.protocol} {found.problem} {found.method} seed {found.seed}{scramble}"
