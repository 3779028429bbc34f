"""The search space as a unit cube: one coordinate in [0, 1) per parameter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from decimal import Decimal

from ..spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter, StudySpec
from ..trial import Params, ParamValue

ParamsKey = frozenset[tuple[str, ParamValue]]


def key_of(params: Params) -> ParamsKey:
    """Return a hashable key of a configuration: equal for equal values in any order."""
    return frozenset(params.items())


def decode(spec: StudySpec, point: Sequence[float]) -> dict[str, ParamValue]:
    """Return the configuration of a point of the cube (one coordinate per parameter, in the order of the space).

    Inactive parameters are dropped. Every choice and every integer gets an equal share of its coordinate.
    """
    values = {key: value_at(parameter, u) for (key, parameter), u in zip(spec.space.items(), point, strict=True)}
    return spec.active(values)


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


def size(spec: StudySpec, limit: int) -> int | None:
    """Return the number of configurations of a space; None if it is infinite or has over `limit` value combinations."""
    values: list[Sequence[ParamValue]] = []
    for parameter in spec.space.values():
        if isinstance(parameter, CategoricalParameter | OrdinalParameter):
            values.append(parameter.choices)
        elif parameter.step is None or grid_size(parameter) > limit:
            return None
        else:
            values.append([grid_value(parameter, index) for index in range(grid_size(parameter))])
    if math.prod(map(len, values)) > limit:
        return None
    combinations = (dict(zip(spec.space, chosen, strict=True)) for chosen in itertools.product(*values))
    return len({key_of(spec.active(params)) for params in combinations})


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


def varies(parameter: AnyParameter) -> bool:
    """Return whether the parameter has more than one value."""
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return len(parameter.choices) > 1
    return parameter.step is None or grid_size(parameter) > 1


def _index(u: float, count: int) -> int:
    return min(int(u * count), count - 1)


def _real(low: float, high: float, u: float, *, log: bool) -> float:
    """Return the value at the share `u` of the way from low to high, and never outside by rounding."""
    value = math.exp((1 - u) * math.log(low) + u * math.log(high)) if log else (1 - u) * low + u * high
    return min(max(value, low), high)
