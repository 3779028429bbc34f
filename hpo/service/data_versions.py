"""The versions of what trials of a study ran on: with two, their values are not comparable.

That is the data set of a training; of a function of a person's own it is its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from ..store import events
from ..store.tables import event, study, trial
from ..trial import CUSTOM

DATA_CHANGED: Final = "study.data_changed"
_SHOWN_DIGITS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """One version of the data set, and the trials of a study that were trained on it."""

    version: str
    trials: int
    first: int
    """Number of the first of them."""


def trained_on(connection: Connection, study_id: int) -> list[TrainedOn]:
    """Return the versions of the data set that a study has seen, by the first trial of each."""
    first = func.min(trial.c.number)
    query = select(trial.c.dataset_version, func.count(), first).group_by(trial.c.dataset_version)
    seen = query.where(trial.c.study_id == study_id, trial.c.dataset_version.is_not(None)).order_by(first)
    rows = connection.execute(seen)
    return [TrainedOn(version=version, trials=count, first=number) for version, count, number in rows]


def data_changed(connection: Connection, study_id: int) -> str | None:
    """Return that the trials of a study ran on different versions, as a sentence; None where they did not."""
    seen = trained_on(connection, study_id)
    return None if len(seen) < 2 else _sentence(seen, _words(connection, study_id))


def note_version(
    connection: Connection, study_id: int, trial_id: int, version: str | None, *, actor: str
) -> str | None:
    """Record an event where a trial is the first on another version of the data set, once for each version.

    Args:
        version: what the worker says, which the trial has by now; None where it does not say it.
        actor: who says it.

    Returns:
        The difference as a sentence for the log of the worker; None where all trials have this version.
    """
    if version is None:
        return None
    seen = trained_on(connection, study_id)
    others = [found for found in seen if found.version != version]
    if not others:
        return None
    most = max(others, key=lambda found: found.trials)
    words = _words(connection, study_id)
    count = f"{most.trials} other trials were" if most.trials > 1 else "another trial was"
    message = f"the {words.what} is version {_shown(version)} here, and {count} {words.used} {_shown(most.version)}"
    own = next(found for found in seen if found.version == version)
    if own.trials == 1 and not _is_noted(connection, study_id, version):
        detail = {"version": version, "before": most.version, "message": message}
        events.append(connection, study_id, trial_id, DATA_CHANGED, actor, detail)
    return message


def _is_noted(connection: Connection, study_id: int, version: str) -> bool:
    noted = select(event.c.id).where(event.c.study_id == study_id, event.c.kind == DATA_CHANGED)
    return connection.execute(noted.where(event.c.detail["version"].astext == version).limit(1)).first() is not None


@dataclass(frozen=True, slots=True)
class _Words:
    """How sentences speak of what has versions."""

    what: str
    used: str


_OF_DATA: Final = _Words("data set", "trained on")
_OF_FUNCTION: Final = _Words("function", "run with")


def _words(connection: Connection, study_id: int) -> _Words:
    kind = connection.execute(select(study.c.task_kind).where(study.c.id == study_id)).scalar_one()
    return _OF_FUNCTION if kind == CUSTOM else _OF_DATA


def _sentence(seen: Sequence[TrainedOn], words: _Words) -> str:
    parts = [f"{each.trials} on {_shown(each.version)} (from trial {each.first})" for each in seen]
    return (
        f"trials were {words.used} {len(seen)} versions of the {words.what}, so that their values are not comparable: "
        f"{', '.join(parts)}; `hpo study enqueue NAME --again TRIAL` trains a configuration again"
    )


def _shown(version: str) -> str:
    digits, _, name = version.partition(" ")
    return digits[:_SHOWN_DIGITS] + (f" ({name})" if name else "")
