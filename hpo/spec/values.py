"""The values of a parameter by number: the coordinate in [0, 1] of a value, its place in a grid, and the reverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from ..trial import ParamValue
from .parameters import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter


def value_at(parameter: AnyParameter, u: float) -> ParamValue:
    """Return the value at the coordinate `u` in [0, 1)."""
    if isinstance(parameter, FloatParameter):
        if parameter.step is not None:
            return grid_value(parameter, _index(u, grid_size(parameter)))
        return _real(parameter.low, parameter.high, u, log=parameter.log)
    if isinstance(parameter, IntParameter):
        if not parameter.log:
            return grid_value(parameter, _index(u, grid_size(parameter)))
        value = round(_real(parameter.low - 0.5, parameter.high + 0.5, u, log=True))
        return min(max(value, parameter.low), parameter.high)
    return parameter.choices[_index(u, len(parameter.choices))]


def coordinate_of(parameter: FloatParameter, value: float) -> float:
    """Return the coordinate in [0, 1] of a value of a range without steps."""
    if parameter.log:
        low, high, value = math.log(parameter.low), math.log(parameter.high), math.log(value)
    else:
        low, high = parameter.low, parameter.high
    if high == low:
        return 0.0  # the ends of so narrow a range have the same logarithm
    return min(max((value - low) / (high - low), 0.0), 1.0)


def unit_of(parameter: AnyParameter, value: ParamValue) -> float:
    """Return the middle of the coordinates that `value_at` maps to a value."""
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return (parameter.choices.index(value) + 0.5) / len(parameter.choices)
    if isinstance(parameter, IntParameter) and parameter.log:
        low, high = math.log(parameter.low - 0.5), math.log(parameter.high + 0.5)
        return (math.log(float(value)) - low) / (high - low)
    if isinstance(parameter, FloatParameter) and parameter.step is None:
        return coordinate_of(parameter, float(value))
    return (grid_index(parameter, value) + 0.5) / grid_size(parameter)


def grid_size(parameter: FloatParameter | IntParameter) -> int:
    """Return the number of values of a stepped range."""
    low, high, step = (Decimal(str(value)) for value in (parameter.low, parameter.high, parameter.step))
    return int((high - low) // step) + 1


def grid_value(parameter: FloatParameter | IntParameter, index: int) -> int | float:
    """Return the value of a stepped range at `index`, from 0; decimal arithmetic avoids 0.30000000000000004 for 0.3."""
    if isinstance(parameter, IntParameter):
        return parameter.low + index * parameter.step
    return float(Decimal(str(parameter.low)) + index * Decimal(str(parameter.step)))


def grid_index(parameter: FloatParameter | IntParameter, value: ParamValue) -> int:
    """Return the index of a value in its stepped range."""
    return round((float(value) - parameter.low) / (parameter.step or 1))


def count_of(parameter: AnyParameter) -> int | None:
    """Return the number of values of a parameter; None for a range without steps."""
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return len(parameter.choices)
    return None if parameter.step is None else grid_size(parameter)


def all_values(parameter: AnyParameter) -> Sequence[ParamValue]:
    """Return the values of a parameter that is not a range without steps, in order."""
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return parameter.choices
    return [grid_value(parameter, index) for index in range(grid_size(parameter))]


def varies(parameter: AnyParameter) -> bool:
    """Return whether the parameter has more than one value."""
    return count_of(parameter) != 1


def _index(u: float, count: int) -> int:
    return min(int(u * count), count - 1)


def _real(low: float, high: float, u: float, *, log: bool) -> float:
    """Return the value at the share `u` of the way from low to high, and never outside by rounding."""
    value = math.exp((1 - u) * math.log(low) + u * math.log(high)) if log else (1 - u) * low + u * high
    return min(max(value, low), high)
