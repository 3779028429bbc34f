"""Keeping the rules of a study: configurations that break one are moved to where all are kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..spec import StudySpec
from ..spec.rules import examples, near, nearest
from ..spec.values import value_at
from ..trial import Params, ParamValue
from .cube import ParamsKey, key_of


def nearest_allowed(spec: StudySpec, params: Params, taken: Collection[ParamsKey] = ()) -> dict[str, ParamValue] | None:
    """Return the configuration that keeps the rules and is nearest to `params`: a new one where there is any.

    None where nothing is allowed.
    """
    first: dict[str, ParamValue] | None = None
    for values in nearest(spec.rulebook, params):
        moved = _with(spec, params, values)
        first = moved if first is None else first
        if key_of(moved) not in taken:
            return moved
    return first


def point_allowed(spec: StudySpec, place: int, point: Sequence[float]) -> dict[str, ParamValue] | None:
    """Return the configuration of a `point` of the unit cube, with allowed values for what the rules mention.

    They are near the point's own where such are found, else the `place`-th of a list. None where nothing is allowed.
    """
    drawn = {key: value_at(parameter, u) for (key, parameter), u in zip(spec.space.items(), point, strict=True)}
    values = near(spec.rulebook, drawn)
    if values is None:
        known = examples(spec.rulebook)
        values = known[place % len(known)] if known else None
    return None if values is None else _with(spec, drawn, values)


def _with(spec: StudySpec, params: Params, values: Params) -> dict[str, ParamValue]:
    """Return `params` with the `values` of what the rules mention; what then exists too has its middle value."""
    middle = {key: value_at(parameter, 0.5) for key, parameter in spec.space.items()}
    kept = {key: value for key, value in params.items() if key not in spec.rulebook.keys}
    return spec.active({**middle, **kept, **values})
