"""The kinds of search parameters: float, int, categorical, ordinal, each optionally conditional."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

Choice = StrictBool | StrictInt | StrictFloat | StrictStr


class Strict(BaseModel):
    """Base of every spec model: unknown fields are errors, values are frozen, NaN is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Prior(Strict):
    """What a person believes about the best value of a parameter: where it is, and how sure that is."""

    center: Choice
    confidence: Literal["low", "medium", "high"] = "medium"


class Parameter(Strict):
    """What all kinds share: `when` maps another parameter to the values under which this one exists."""

    when: dict[str, list[Choice]] = Field(default_factory=dict)
    prior: Prior | None = None
    """Where the optimizer `ax` is to look first; what the trials show counts more and more."""

    @model_validator(mode="after")
    def _when_lists_values(self) -> Self:
        for parent, values in self.when.items():
            if not values:
                raise ValueError(f"`when.{parent}` lists no values; give at least one")
        return self


class FloatParameter(Parameter):
    """A real number in [low, high]; uniform in the logarithm with `log`, on a grid from low with `step`."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _check_bounds(self.low, self.high, self.log)
        if self.log and self.step is not None:
            raise ValueError("`log` and `step` exclude each other; list the values as an ordinal instead")
        return self

    def contains(self, value: object) -> bool:
        """Return whether `value` is a number in the range (on the grid, when there is one)."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        if not self.low - slack <= value <= self.high + slack:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isfinite(steps) and math.isclose(steps, round(steps), abs_tol=1e-6)

    @property
    def extremes(self) -> tuple[float, ...]:
        """The values whose validity implies that of all others."""
        return (self.low, self.high)


class IntParameter(Parameter):
    """An integer in [low, high]; uniform in the logarithm with `log`, every `step`-th from low with `step`."""

    type: Literal["int"]
    low: StrictInt
    high: StrictInt
    log: bool = False
    step: StrictInt = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _check_bounds(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError("`log` and `step` exclude each other; list the values as an ordinal instead")
        if (self.high - self.low) % self.step:
            last = self.high - (self.high - self.low) % self.step
            raise ValueError(f"`high` is not reached from `low` in steps of {self.step}; use high: {last}")
        return self

    def contains(self, value: object) -> bool:
        """Return whether `value` is an integer of the range and on its grid."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    @property
    def extremes(self) -> tuple[int, ...]:
        """The values whose validity implies that of all others."""
        return (self.low, self.high)


class _ChoiceParameter(Parameter):
    choices: list[Choice] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        # True, 1 and 1.0 are one key in Python, in JSON indices and in Optuna: refuse what would collide.
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("the choices are not distinct (1, 1.0 and true count as the same)")
        return self

    def contains(self, value: object) -> bool:
        """Return whether `value` is one of the choices, of the same type (an int may stand for an equal float)."""
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choices)

    @property
    def extremes(self) -> tuple[bool | int | float | str, ...]:
        """The values whose validity implies that of all others."""
        return tuple(self.choices)


class CategoricalParameter(_ChoiceParameter):
    """One of several values without an order."""

    type: Literal["categorical"]


class OrdinalParameter(_ChoiceParameter):
    """One of several values in the order given; neighbours are expected to behave alike."""

    type: Literal["ordinal"]

    @model_validator(mode="after")
    def _sorted_numbers(self) -> Self:
        numbers = [c for c in self.choices if isinstance(c, int | float)]
        if len(numbers) == len(self.choices) and numbers != sorted(numbers):
            raise ValueError("numeric choices of an ordinal must increase; sort them or use categorical")
        return self


AnyParameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter | OrdinalParameter,
    Field(discriminator="type"),
]


def _check_bounds(low: float, high: float, log: bool) -> None:
    if low >= high:
        raise ValueError(f"`low` ({low:g}) must be less than `high` ({high:g})")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range must start above 0, but `low` is {low:g}")


def matches(condition: dict[str, list[Any]], params: dict[str, Any]) -> bool:
    """Return whether every parent named in `condition` is active in `params` with one of the values listed."""
    return all(parent in params and params[parent] in values for parent, values in condition.items())
