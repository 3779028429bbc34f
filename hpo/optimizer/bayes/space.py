"""A search space as the model sees it: the coordinates of a configuration, and the embedding that distances refer to.

A configuration is a row of coordinates, one per parameter that varies: a number in [0, 1] (logarithmic where the
parameter is), or the index of a categorical choice. Rows keep a coordinate for inactive parameters too; models ignore
it, and the search still has it when a parent switches the parameter off and on again.

The kernel is a function of the Euclidean distance between embedded rows, so it is positive definite for any space:

    number                 its coordinate
    categorical            the corner of a simplex with edges of length 1: all choices are equally far apart
    conditional number     a point on a half circle of length 1; when inactive, the centre of the circle
    conditional category   the corner of the simplex; when inactive, the centre of the simplex

One more column holds the squared distance from the middle of the space, which only the trend reads (`gp`): the
weighted sum over active numbers of (2 u - 1)^2, or of the squared sine for conditional ones. A continuous number on a
logarithmic scale counts fully: a range that spans decades is chosen so that the best is inside. Other numbers count
little, since the best of them (layers, batch size, frames) is often at an end; those with only two values have no
middle.

A parameter that is inactive in both configurations therefore contributes nothing to their distance, and one that is
active in only one of them contributes the same for each of its values (the arc kernel of Swersky et al., 2014, "Raiders
of the Lost Architecture").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...arrays import Array, Indices, Mask
from ...spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter, StudySpec
from ...spec.rules import allowed, examples
from ...trial import Params, ParamValue
from ..cube import coordinate_of, grid_index, grid_size, grid_value, value_at, varies
from .kernels import DISTANCE_FROM_MIDDLE

_FEW_VALUES = 2
"""A number with this many values or fewer has no middle."""
_WEIGHT_WITHOUT_DECADES = 0.2
"""How much the distance from the middle counts for a number whose range is not logarithmic and continuous."""
_ARC_ANGLE = math.pi
"""The angle that the range of a conditional number covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One parameter that varies."""

    key: str
    parameter: AnyParameter
    count: int
    """The number of its values; 0 for a continuous parameter."""
    is_categorical: bool
    conditions: tuple[tuple[int, tuple[int, ...]], ...]
    """(axis of the parent, indices of the parent's values under which this one is active), for parents that vary."""
    is_conditional: bool

    @property
    def is_continuous(self) -> bool:
        """Whether any coordinate in [0, 1] is a value."""
        return self.count == 0

    def coordinate(self, value: ParamValue) -> float:
        """Return the coordinate of a value."""
        if isinstance(self.parameter, CategoricalParameter):
            return float(self.parameter.choices.index(value))
        if isinstance(self.parameter, OrdinalParameter):
            return self.parameter.choices.index(value) / (self.count - 1)
        if isinstance(self.parameter, FloatParameter) and self.is_continuous:
            return coordinate_of(self.parameter, float(value))
        if self.parameter.log:
            low, high = math.log(self.parameter.low), math.log(self.parameter.high)
            return (math.log(float(value)) - low) / (high - low)
        return grid_index(self.parameter, value) / (self.count - 1)

    def value(self, coordinate: float) -> ParamValue:
        """Return the value nearest to a coordinate."""
        if isinstance(self.parameter, CategoricalParameter):
            return self.parameter.choices[round(coordinate)]
        if isinstance(self.parameter, OrdinalParameter):
            return self.parameter.choices[round(coordinate * (self.count - 1))]
        if isinstance(self.parameter, FloatParameter) and self.is_continuous:
            return value_at(self.parameter, coordinate)
        if self.parameter.log:
            low, high = math.log(self.parameter.low), math.log(self.parameter.high)
            return min(max(round(math.exp(low + coordinate * (high - low))), self.parameter.low), self.parameter.high)
        return grid_value(self.parameter, round(coordinate * (self.count - 1)))

    def snap(self, coordinates: Array) -> Array:
        """Return the coordinates of the values nearest to `coordinates`."""
        if self.is_continuous or self.is_categorical:
            return coordinates
        if isinstance(self.parameter, IntParameter) and self.parameter.log:
            low, high = math.log(self.parameter.low), math.log(self.parameter.high)
            values = np.rint(np.exp(low + coordinates * (high - low)))
            return np.asarray((np.log(values) - low) / (high - low))
        return np.asarray(np.rint(coordinates * (self.count - 1)) / (self.count - 1))

    def place(self, coordinates: Array) -> Array:
        """Return the indices of the values at coordinates, from 0."""
        return np.rint(coordinates if self.is_categorical else coordinates * (self.count - 1))

    @property
    def coordinates(self) -> Array:
        """The coordinates of all values, in order; none for a continuous parameter."""
        if self.is_categorical:
            return np.arange(self.count, dtype=float)
        if isinstance(self.parameter, IntParameter) and self.parameter.log:
            return np.array([self.coordinate(value) for value in range(self.parameter.low, self.parameter.high + 1)])
        return np.linspace(0.0, 1.0, self.count)


class Space:
    """The varying parameters of a study, in the order of the spec."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        keys = [key for key, parameter in spec.space.items() if varies(parameter)]
        self._fixed = {key: value_at(parameter, 0.5) for key, parameter in spec.space.items() if key not in keys}
        self.axes = [_axis(spec, key, keys) for key in keys]
        self._middle = {
            axis.key: axis.value((axis.count - 1) // 2 if axis.is_categorical else 0.5) for axis in self.axes
        }
        self.order = [keys.index(key) for key in spec.parameter_order if key in keys]
        """The axes, parents before their children."""
        self.middle_weights = [_middle_weight(axis) for axis in self.axes]
        """How much each axis counts in the distance from the middle of the space."""
        self.columns = np.append(_columns(self.axes), DISTANCE_FROM_MIDDLE)
        """Which axis each column of the embedding belongs to."""
        self.is_categorical: Mask = np.array([axis.is_categorical for axis in self.axes], dtype=bool)
        self.is_continuous: Mask = np.array([axis.is_continuous for axis in self.axes], dtype=bool)

    @property
    def dimensions(self) -> int:
        """The number of parameters that vary."""
        return len(self.axes)

    # ---------------------------------------------------------------- configurations

    def encode(self, params: Params) -> Array:
        """Return the row of a configuration, with inactive parameters at their middle value."""
        return np.array([axis.coordinate(params.get(axis.key, self._middle[axis.key])) for axis in self.axes])

    def decode(self, row: Array) -> dict[str, ParamValue]:
        """Return the configuration of a row, without inactive parameters."""
        values = {axis.key: axis.value(float(u)) for axis, u in zip(self.axes, row, strict=True)}
        return self._spec.active({**self._fixed, **values})

    def fixed(self, values: Params) -> dict[int, float]:
        """Return the coordinates of given values, by axis."""
        return {place: axis.coordinate(values[axis.key]) for place, axis in enumerate(self.axes) if axis.key in values}

    def from_unit(self, points: Array) -> Array:
        """Return the rows of points of the unit cube; every discrete value gets an equal share of its coordinate."""
        rows = points.copy()
        for place, axis in enumerate(self.axes):
            if axis.is_categorical:
                rows[:, place] = np.minimum(np.floor(points[:, place] * axis.count), axis.count - 1)
            elif not axis.is_continuous and not (isinstance(axis.parameter, IntParameter) and axis.parameter.log):
                rows[:, place] = np.minimum(np.floor(points[:, place] * axis.count), axis.count - 1) / (axis.count - 1)
            else:
                rows[:, place] = axis.snap(points[:, place])
        return rows

    def snap(self, rows: Array) -> Array:
        """Return the rows with every coordinate moved to that of the nearest value."""
        return np.column_stack([axis.snap(rows[:, place]) for place, axis in enumerate(self.axes)])

    def active(self, rows: Array) -> Mask:
        """Return which coordinates of rows are active: (rows, dimensions)."""
        found = np.ones(rows.shape, dtype=bool)
        for place in self.order:
            for parent, values in self.axes[place].conditions:
                holds = np.isin(self.axes[parent].place(rows[:, parent]), values)
                found[:, place] &= holds & found[:, parent]
        return found

    # ---------------------------------------------------------------- rules

    def allows(self, rows: Array) -> Mask:
        """Return which rows keep the rules of the study: (rows,)."""
        book = self._spec.rulebook
        if not book.rules:
            return np.ones(len(rows), dtype=bool)
        if not book.keys:
            return np.full(len(rows), book.allows({}))
        axes = {axis.key: place for place, axis in enumerate(self.axes)}
        columns = [
            [self.axes[axes[key]].value(u) for u in rows[:, axes[key]].tolist()]
            if key in axes
            else [self._fixed[key]] * len(rows)
            for key in book.keys
        ]
        return np.array(book.allows_columns(columns), dtype=bool)

    def with_allowed(self, rows: Array, given: Params | None = None) -> Array:
        """Return the rows; those that break a rule get allowed values in turn for what the rules mention.

        The values in `given` stay. Where nothing is allowed with them, all rows stay as they are.
        """
        broken = np.flatnonzero(~self.allows(rows))
        if not len(broken):
            return rows
        book = self._spec.rulebook
        known = list(itertools.islice(allowed(book, given), len(broken))) if given else examples(book)
        rows = rows.copy()
        for place, values in zip(broken, itertools.cycle(known), strict=False):
            for column, axis in enumerate(self.axes):
                if axis.key in values:
                    rows[place, column] = axis.coordinate(values[axis.key])
        return rows

    # ---------------------------------------------------------------- the embedding

    def embed(self, rows: Array) -> Array:
        """Return the points (rows, columns) whose weighted Euclidean distances the kernel reads."""
        active = self.active(rows)
        parts = [_embed(axis, rows[:, place], active[:, place]) for place, axis in enumerate(self.axes)]
        distance = np.zeros((len(rows), 1))
        for place, (axis, weight) in enumerate(zip(self.axes, self.middle_weights, strict=True)):
            if weight:
                distance[:, 0] += np.where(active[:, place], weight * _from_middle(axis, rows[:, place]), 0.0)
        return np.concatenate([*parts, distance], axis=1)


def _axis(spec: StudySpec, key: str, keys: list[str]) -> Axis:
    parameter = spec.space[key]
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        count = len(parameter.choices)
    elif isinstance(parameter, IntParameter):
        count = (parameter.high - parameter.low) // parameter.step + 1
    else:
        count = 0 if parameter.step is None else grid_size(parameter)
    conditions = tuple(_conditions(spec, key, keys))
    return Axis(
        key=key,
        parameter=parameter,
        count=count,
        is_categorical=isinstance(parameter, CategoricalParameter),
        conditions=conditions,
        is_conditional=bool(conditions),
    )


def _conditions(spec: StudySpec, key: str, keys: list[str]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the conditions of a parameter; a parent with a single value is replaced by that parent's conditions."""
    for parent, values in spec.space[key].when.items():
        if parent in keys:
            choices = spec.space[parent].extremes
            yield keys.index(parent), tuple(place for place, choice in enumerate(choices) if choice in values)
        else:
            yield from _conditions(spec, parent, keys)


def _columns(axes: list[Axis]) -> Indices:
    widths = [axis.count if axis.is_categorical else 2 if axis.is_conditional else 1 for axis in axes]
    return np.repeat(np.arange(len(axes)), widths)


def _middle_weight(axis: Axis) -> float:
    if axis.is_categorical or axis.count in (1, _FEW_VALUES):
        return 0.0
    has_decades = axis.is_continuous and isinstance(axis.parameter, FloatParameter) and axis.parameter.log
    return 1.0 if has_decades else _WEIGHT_WITHOUT_DECADES


def _from_middle(axis: Axis, coordinates: Array) -> Array:
    """Return the squared distance from the middle of an axis, 1 at its ends."""
    if axis.is_conditional:
        return np.sin(_ARC_ANGLE * (coordinates - 0.5)) ** 2
    return (2 * coordinates - 1) ** 2


def _embed(axis: Axis, coordinates: Array, active: Mask) -> Array:
    if axis.is_categorical:
        corners = np.eye(axis.count) / math.sqrt(2)
        if axis.is_conditional:
            corners -= corners.mean(axis=0)
        points = corners[coordinates.astype(int)]
    elif axis.is_conditional:
        angle = _ARC_ANGLE * (coordinates - 0.5)
        points = np.column_stack([np.cos(angle), np.sin(angle)]) / _ARC_ANGLE
    else:
        return coordinates[:, None]
    return np.where(active[:, None], points, 0.0)
