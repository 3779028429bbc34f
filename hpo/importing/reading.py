"""Which program wrote a file of results, and reading it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ..errors import SetupError
from .ax_snapshot import read_ax
from .found import MOST_BYTES, MOST_POINTS, Results
from .optuna_study import read_optuna
from .tables import read_table

FORMATS: Final = ("auto", "csv", "wandb", "optuna", "ax")
_SQLITE: Final = b"SQLite format 3\0"


def read(place: str, *, form: str = "auto", study: str | None = None) -> Results:
    """Return the results that are at `place`: the path of a file, or the address of a database of Optuna.

    Args:
        form: which program wrote it, of `FORMATS`.
        study: the name of the Optuna study, where there are several.

    Raises:
        SetupError: it cannot be read, or is not of that program; says what to do.
    """
    if "://" in place:
        found = read_optuna(place, study)
    else:
        path = Path(place)
        size = _size(path)
        if size > MOST_BYTES and form != "optuna":
            raise SetupError(f"{path} has {size / 2**20:.0f} MiB; files of results have at most {MOST_BYTES >> 20} MiB")
        match _recognised(path) if form == "auto" else form:
            case "optuna":
                found = read_optuna(str(path), study)
            case "ax":
                found = read_ax(path)
            case _:
                found = read_table(path)
    if sum(len(trial.curve) for trial in found.trials) > MOST_POINTS:
        raise SetupError(f"{place} has more than {MOST_POINTS:,} points of curves; import a part of its trials")
    return found


def _size(path: Path) -> int:
    try:
        with path.open("rb"):
            return path.stat().st_size
    except OSError as error:
        raise SetupError(f"{path} cannot be read ({error.strerror or error})") from error


def _recognised(path: Path) -> str:
    """Return which program wrote a file, by how it begins."""
    with path.open("rb") as file:
        first = file.read(4096)
    if first.startswith(_SQLITE):
        return "optuna"
    start = first.lstrip()[:1]
    if start != b"{":
        return "csv"
    line = first.partition(b"\n")[0]
    try:
        is_journal = "op_code" in json.loads(line)
    except ValueError:
        is_journal = False
    return "optuna" if is_journal else "ax"
