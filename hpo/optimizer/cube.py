"""The search space as a unit cube: one coordinate in [0, 1) per parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..spec import StudySpec
from ..spec.configurations import count_configurations
from ..spec.values import (
    coordinate_of,
    count_of,
    grid_index,
    grid_size,
    grid_value,
    value_at,
    varies,
)
from ..trial import Params, ParamValue

__all__ = [
    "ParamsKey",
    "coordinate_of",
    "decode",
    "grid_index",
    "grid_size",
    "grid_value",
    "key_of",
    "size",
    "value_at",
    "varies",
]

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


def size(spec: StudySpec, limit: int) -> int | None:
    """Return the number of configurations that keep the rules; None where there are over `limit` without them."""
    counts = [count_of(parameter) for parameter in spec.space.values()]
    finite = [count for count in counts if count is not None]
    if len(finite) < len(counts) or math.prod(finite) > limit:
        return None
    return count_configurations(spec)
