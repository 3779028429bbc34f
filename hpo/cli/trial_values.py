"""Values of trials by name, for the commands that sort and filter them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import typer

from ..meanings import nearest
from ..trial import TrialState

Trial = Mapping[str, Any]
Value = bool | int | float | str

_OWN: Final[Mapping[str, str]] = {
    "trial": "number",
    "state": "state",
    "epochs": "epochs_done",
    "attempt": "attempt",
    "generator": "generator",
    "worker": "worker",
    "failure": "failure_kind",
    "data": "dataset_version",
    "gpu_seconds": "gpu_seconds",
    "memory": "peak_memory_bytes",
    "expected": "predicted_mean",
    "started": "started_at",
    "finished": "finished_at",
}
"""What a person calls the fields of a trial. Parameters and metrics have their own names."""
_CONDITION: Final = re.compile(r"\s*(?P<name>[^\s<>=!]+)\s*(?P<sign><=|>=|!=|==|=|<|>)\s*(?P<value>.*?)\s*", re.DOTALL)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_SIGNS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
VERSION_DIGITS: Final = 12
"""Of a version of the data, as people see it."""
_TIMES: Final = frozenset({"started", "finished"})
_NAMED: Final = 12
"""Names that an error lists at most."""


def metrics_of(trial: Trial) -> Mapping[str, float]:
    """Return the final values of a trial, else its last reported ones."""
    return trial.get("metrics") or trial.get("last_metrics") or {}


def states_of(names: Sequence[str]) -> list[TrialState]:
    """Return the states of these names.

    Raises:
        BadParameter: there is no such state.
    """
    for name in names:
        if name not in [*TrialState]:
            raise typer.BadParameter(f"{name!r} is no state of a trial: {', '.join(TrialState)}")
    return [TrialState(name) for name in names]


def sorted_by(found: Sequence[Trial], name: str, known: Iterable[str], *, is_reversed: bool) -> list[Trial]:
    """Return the trials by a value, the smallest first or last; those that have none come at the end.

    Args:
        name: a field, a parameter or a metric.
        known: the names of parameters and metrics that the study may have.

    Raises:
        BadParameter: there is nothing of that name.
    """
    _check(name, found, known)
    has = [(trial, value) for trial in found if (value := _value(trial, name)) is not None]
    numbers = all(isinstance(value, bool | int | float) for _, value in has)
    has.sort(key=lambda pair: pair[1] if numbers else str(pair[1]), reverse=is_reversed)
    return [*(trial for trial, _ in has), *(trial for trial in found if _value(trial, name) is None)]


def where(found: Sequence[Trial], conditions: Sequence[str], known: Iterable[str]) -> list[Trial]:
    """Return the trials that keep all conditions, such as `lr<0.01` or `model=slowfast_r50_4x16`.

    A trial without the value keeps none of its conditions. A day stands for all of its moments in UTC: trials that
    started on it are not after it.

    Args:
        known: the names of parameters and metrics that the study may have.

    Raises:
        BadParameter: a condition cannot be read, or names nothing.
    """
    names = list(known)
    kept = list(found)
    for text in conditions:
        parts = _CONDITION.fullmatch(text)
        if parts is None or not parts["value"]:
            raise typer.BadParameter(f"{text!r} is no condition: write NAME<VALUE, with <, >, <=, >=, = or !=")
        _check(parts["name"], found, names)
        keeps = _keeps_time if parts["name"] in _TIMES else _keeps
        kept = [trial for trial in kept if keeps(_value(trial, parts["name"]), parts["sign"], parts["value"], text)]
    return kept


def _keeps_time(value: Value | None, sign: str, wanted: str, text: str) -> bool:
    try:
        moment = datetime.fromisoformat(wanted)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: {wanted!r} is no time: write 2026-01-31, or 2026-01-31T18:30 in UTC"
        ) from None
    if not isinstance(value, str):
        return False
    found = datetime.fromisoformat(value).astimezone(UTC)
    if _DAY.fullmatch(wanted):
        return _SIGNS[sign](found.date(), moment.date())
    return _SIGNS[sign](found, moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


def _keeps(value: Value | None, sign: str, wanted: str, text: str) -> bool:
    if value is None:
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return _SIGNS[sign](value, float(wanted))
        except ValueError:
            raise typer.BadParameter(f"{text!r}: {wanted!r} is not a number") from None
    if sign not in ("=", "==", "!="):
        raise typer.BadParameter(f"{text!r}: {value} is not a number; write = or !=")
    return _SIGNS[sign](str(value).lower(), wanted.lower())


def _value(trial: Trial, name: str) -> Value | None:
    if name in trial["params"]:
        return trial["params"][name]  # type: ignore[no-any-return] # JSON
    if name in metrics_of(trial):
        return metrics_of(trial)[name]
    if name == "data":  # as the table shows it
        return (trial.get("dataset_version") or "")[:VERSION_DIGITS] or None
    return trial.get(_OWN.get(name, name)) if name in _OWN else None


def _check(name: str, found: Sequence[Trial], known: Iterable[str]) -> None:
    names = [*dict.fromkeys([*known, *(metric for trial in found for metric in metrics_of(trial)), *_OWN])]
    if name in names:
        return
    near = nearest(name, names)
    means = f"; do you mean {near}?" if near is not None else f"; there are {', '.join(names[:_NAMED])} and more"
    raise typer.BadParameter(f"no trial has a value of the name {name!r}{means}")
