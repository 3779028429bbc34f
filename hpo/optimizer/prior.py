"""Beliefs of the user about the optimum, as densities over the coordinates of the parameters.

The belief about a number is a normal density around the centre, truncated to the range, in the coordinate that is
searched (logarithmic where the parameter is). The belief about a category makes the centre more probable than each
other choice by a fixed factor. The confidences have the meaning they have in NePS (Mallik et al., 2023, "PriorBand").
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

from ..spec import AnyParameter, CategoricalParameter, StudySpec
from ..spec.parameters import Prior
from ..spec.values import unit_of, value_at
from ..trial import ParamValue
from .sobol import PointGenerator, sobol_points

SPREADS: Final = {"low": 0.5, "medium": 0.25, "high": 0.125}
"""Standard deviation in the coordinate, by confidence."""
WEIGHTS: Final = {"low": 2.0, "medium": 4.0, "high": 6.0}
"""Probability of the centre relative to another choice, by confidence."""
_LARGEST_COORDINATE: Final = 1 - 1e-9


def has_prior(spec: StudySpec) -> bool:
    """Return whether any parameter has a prior."""
    return any(parameter.prior is not None for parameter in spec.space.values())


def prior_generator() -> PointGenerator:
    """Return the generator of the start-up: the centre of the belief, then draws from it and Sobol points in turn."""
    return PointGenerator("sobol (with prior)", sobol_points, believed)


def believed(spec: StudySpec, place: int, point: Sequence[float]) -> dict[str, ParamValue]:
    """Return the configuration at index `place` of the start-up; parameters without a prior get the point's value."""
    values = {}
    for (key, parameter), u in zip(spec.space.items(), point, strict=True):
        if parameter.prior is None or place % 2 == 0 < place:
            values[key] = value_at(parameter, u)
        elif place == 0:
            values[key] = parameter.prior.center
        else:
            values[key] = value_at(parameter, _quantile(parameter, parameter.prior, u))
    return spec.active(values)


def _quantile(parameter: AnyParameter, prior: Prior, u: float) -> float:
    """Return the coordinate below which the probability of the belief is `u`."""
    if isinstance(parameter, CategoricalParameter):
        return _share(parameter.choices.index(prior.center), len(parameter.choices), WEIGHTS[prior.confidence], u)
    normal = NormalDist(unit_of(parameter, prior.center), SPREADS[prior.confidence])
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    return min(max(normal.inv_cdf(low + u * (high - low)), 0.0), _LARGEST_COORDINATE)


def _share(centre: int, count: int, weight: float, u: float) -> float:
    """Return the coordinate of the choice at the quantile `u`, where the centre weighs `weight` and others weigh 1."""
    left = u * (count - 1 + weight)
    for place in range(count):
        width = weight if place == centre else 1.0
        if left < width:
            return (place + 0.5) / count
        left -= width
    return (count - 0.5) / count
