"""CSV files with a row for each training: tables of one's own, of Optuna's `trials_dataframe`, and runs of W&B."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..errors import SetupError
from .found import OBJECTIVE, FoundTrial, Results, State

_NAMES: Final = ("number", "trial", "trial_index", "trial_id", "id", "run", "name")
"""Columns with what a training is called."""
_STATES: Final[Mapping[str, State]] = {
    **dict.fromkeys(("complete", "completed", "finished", "done", "success", "succeeded", "ok"), "completed"),
    **dict.fromkeys(("pruned", "stopped", "early_stopped", "killed", "terminated"), "stopped"),
    **dict.fromkeys(("fail", "failed", "crashed", "error", "abandoned"), "failed"),
}
_OPEN: Final = frozenset({"running", "waiting", "pending", "queued", "suggested", "paused", "candidate", "staged"})
_PREFIX: Final = re.compile(r"^(?:params?|config|parameters?|hparams?|summary|metrics?)[_./]")
_VALUE: Final = re.compile(r"^values?(?:_(\d+))?$")
_OF_WANDB: Final = frozenset({"Name", "State"})
_WANDB_OWN: Final = frozenset(
    {"Notes", "User", "Tags", "Created", "Runtime", "Sweep", "Updated", "End Time", "Hostname"}
)


def read_table(path: Path) -> Results:
    """Return the trainings of a CSV file: its first row has names of columns.

    Raises:
        SetupError: it is no such table.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SetupError(f"{path} is no CSV file: it is not UTF-8 text") from error
    return parse_table(text, path=str(path), name=path.name)


def parse_table(text: str, *, path: str, name: str) -> Results:
    """Return the trainings of a table that was read already.

    Args:
        text: CSV, as it stands in the file.
        path: what the table is called where something is wrong with it.
        name: what it is called as the source of trials.

    Raises:
        SetupError: it is no such table.
    """
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise SetupError(f"{path} is no CSV file: {error}") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if len(header) < 2 or len(rows) < 2:
        raise SetupError(f"{path} is no table of trainings: its first row needs names of columns, the others values")
    if double := [name for name, count in Counter(header).items() if name and count > 1]:
        raise SetupError(f"{path} has several columns named {double[0]!r}; rename all but one")
    is_wandb = _OF_WANDB.issubset(header)
    own = {name: place for place, name in enumerate(header) if name and not (is_wandb and name in _WANDB_OWN)}
    lowered = {name.lower(): name for name in own}
    state = lowered.get("state") or lowered.get("status")
    called = next((lowered[name] for name in _NAMES if name in lowered), None)
    trials, is_open, seen = [], 0, Counter[str]()
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise SetupError(f"{path}: row {line} has {len(row)} values, and there are {len(header)} columns")
        cells = {name: row[place].strip() for name, place in own.items() if row[place].strip()}
        how = cells.pop(state, "").lower().rpartition(".")[2] if state else ""
        if how in _OPEN:
            is_open += 1
            continue
        own_name = cells.pop(called, "") if called else ""
        values = {_plain(column): cell for column, cell in cells.items()}
        # Two rows that say the same are two trainings.
        same = repr((own_name, how, sorted(values.items())))
        seen[same] += 1
        again = f" ({seen[same]})" if seen[same] > 1 else ""
        numbers = {column: number for column, cell in values.items() if (number := _number(cell)) is not None}
        trials.append(
            FoundTrial(
                name=f"{own_name or f'row {line}'}{again}"[:100], params=values, state=_STATES.get(how), metrics=numbers
            )
        )
    what = "the table of W&B runs" if is_wandb else "the table"
    return Results(source=f"{what} {name}", trials=trials, open=is_open, may_hold_more=True)


def _plain(column: str) -> str:
    """Return the name of a column without what programs put before it."""
    if match := _VALUE.match(column):
        return OBJECTIVE.format(match[1] or 0)
    return _PREFIX.sub("", column)


def _number(cell: str) -> float | None:
    try:
        found = float(cell)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
