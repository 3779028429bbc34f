"""Studies of Optuna: a database, a file of SQLite, or a journal."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import SetupError
from .found import OBJECTIVE, FoundTrial, Results, State

_STATES: Final[Mapping[str, State]] = {"COMPLETE": "completed", "PRUNED": "stopped", "FAIL": "failed"}
_SQLITE: Final = b"SQLite format 3\0"


def read_optuna(place: str, name: str | None) -> Results:
    """Return the trials of an Optuna study that have ended; `place` is an address or a file.

    Raises:
        SetupError: there is no such storage, or it has several studies and none is named.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(logging.WARNING)
    try:
        storage = _storage(place)
        names = optuna.get_all_study_names(storage)
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            which = f"it has {', '.join(map(repr, names[:10]))}" if names else "it has none"
            missing = "name one with --study" if name is None else f"there is no study {name!r}"
            raise SetupError(f"{_shown(place)}: {missing}; {which}")
        study = optuna.load_study(study_name=name, storage=storage)
        trials = study.get_trials(deepcopy=False)
        directions = [direction.name.lower() for direction in study.directions]
    except (optuna.exceptions.OptunaError, SQLAlchemyError, ImportError, ValueError, KeyError, OSError) as error:
        # What the libraries say may hold the password of the address.
        raise SetupError(
            f"{_shown(place)} cannot be read as a storage of Optuna ({type(error).__name__}): give a file of SQLite, a "
            "journal, or an address such as postgresql+psycopg2://user@host/name with the password in PGPASSWORD"
        ) from error
    ended = [_trial(trial, len(directions)) for trial in trials if trial.state.name in _STATES]
    open_trials = len(trials) - len(ended)
    return Results(source=f"the Optuna study {name}", trials=ended, open=open_trials, directions=directions)


def _storage(place: str) -> Any:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" in place:
        return RDBStorage(place)
    path = Path(place).absolute()
    with path.open("rb") as file:
        is_database = file.read(len(_SQLITE)) == _SQLITE
    # Read-only, so that nothing is changed in a database of another release.
    return (
        RDBStorage(f"sqlite:///file:{path}?mode=ro&uri=true")
        if is_database
        else JournalStorage(JournalFileBackend(place))
    )


def _shown(place: str) -> str:
    """Return an address without what it may hold of a password."""
    scheme, separator, rest = place.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else place


def _trial(trial: Any, objectives: int) -> FoundTrial:
    state = _STATES[trial.state.name]
    numbers = {
        name: float(value)
        for name, value in trial.user_attrs.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    values = trial.values if state != "failed" and trial.values is not None else []
    metrics = {OBJECTIVE.format(place): float(value) for place, value in enumerate(values) if math.isfinite(value)}
    steps = trial.intermediate_values if objectives == 1 else {}
    curve = {
        int(step): {OBJECTIVE.format(0): float(value)}
        for step, value in steps.items()
        if math.isfinite(value) and step >= 0
    }
    reason = trial.system_attrs.get("fail_reason") or trial.user_attrs.get("failure_message") or ""
    return FoundTrial(
        name=str(trial.number),
        params=dict(trial.params),
        state=state,
        metrics={} if state == "failed" else {**numbers, **metrics},
        curve=curve,
        message=str(reason),
    )
