"""What the `suggest_*` calls of an objective say about the space, as parameters of a study spec."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ..client.replies import Value
from ..errors import SetupError

Declared = dict[str, Any]
"""A parameter as a study spec writes it; `{"fixed": value}` where there is nothing to choose."""


def float_parameter(low: float, high: float, *, step: float | None, log: bool) -> Declared:
    """Return a real parameter; with `step`, `high` is the last value that is reached."""
    if step is not None:
        steps = (Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step))
        high = float(Decimal(str(low)) + steps * Decimal(str(step)))
    if low == high:
        return {"fixed": float(low)}
    found = {"type": "float", "low": float(low), "high": float(high)}
    return found | ({"log": True} if log else {}) | ({} if step is None else {"step": float(step)})


def int_parameter(low: int, high: int, *, step: int, log: bool) -> Declared:
    """Return a parameter of whole numbers; `high` is the last value that is reached."""
    high -= (high - low) % step
    if low == high:
        return {"fixed": low}
    found = {"type": "int", "low": low, "high": high}
    return found | ({"log": True} if log else {}) | ({} if step == 1 else {"step": step})


def categorical_parameter(name: str, choices: Sequence[Any]) -> Declared:
    """Return a parameter of choices.

    Raises:
        SetupError: a choice is no number, text, true or false.
    """
    for choice in choices:
        if not isinstance(choice, bool | int | float | str):
            raise SetupError(
                f"suggest_categorical({name!r}): {choice!r} is a {type(choice).__name__}, and a study keeps numbers, "
                "texts, true and false: suggest a text, and look the object up by it"
            )
    return {"fixed": choices[0]} if len(choices) == 1 else {"type": "categorical", "choices": list(choices)}


def is_same(declared: Declared, kept: Mapping[str, Any]) -> bool:
    """Return whether a suggestion says what the space of a study says."""
    if declared.get("type") == "categorical" and kept.get("type") == "ordinal":
        return bool(declared["choices"] == kept["choices"])
    neutral = {"log": False, "step": 1 if kept.get("type") == "int" else None}
    keys = ("type", "low", "high", "log", "step", "choices")
    return all(declared.get(key, neutral.get(key)) == kept.get(key, neutral.get(key)) for key in keys)


@dataclass(slots=True, kw_only=True)
class Recording:
    """The space as far as the first run of an objective has said it, and the values that it was given."""

    wanted: Mapping[str, Value] = field(default_factory=dict)
    """Values of an enqueued trial, which the first run takes."""
    declared: dict[str, Declared] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)

    def suggest(self, name: str, declared: Declared) -> Value:
        """Keep what a call says, and return the value in the middle; the first of several choices.

        Raises:
            SetupError: an earlier call has said something else about the same name.
        """
        if name in self.declared:
            if self.declared[name] != declared:
                raise SetupError(f"{name!r} is suggested twice, with different ranges: use two names")
            return self.values[name]
        self.declared[name] = declared
        self.values[name] = self.wanted[name] if name in self.wanted else _middle(declared)
        return self.values[name]

    @property
    def space(self) -> dict[str, Declared]:
        """The parameters to search."""
        return {name: one for name, one in self.declared.items() if "fixed" not in one}

    @property
    def base(self) -> dict[str, Value]:
        """Those with a single value."""
        return {name: one["fixed"] for name, one in self.declared.items() if "fixed" in one}

    @property
    def guess(self) -> dict[str, Value]:
        """The values of `space` that the first run was given."""
        return {name: self.values[name] for name in self.space}


def _middle(declared: Declared) -> Value:
    if "fixed" in declared:
        value: Value = declared["fixed"]
        return value
    if declared["type"] == "categorical":
        first: Value = declared["choices"][0]
        return first
    low, high = declared["low"], declared["high"]
    middle = math.sqrt(low * high) if declared.get("log") else (low + high) / 2
    if declared["type"] == "int":
        step = declared.get("step", 1)
        return int(low + (int(middle) - low) // step * step)
    if (step := declared.get("step")) is not None:
        return float(Decimal(str(low)) + Decimal(int((middle - low) / step)) * Decimal(str(step)))
    return float(middle)
