"""A search space in Ax's terms, and configurations translated in both directions.

Names and values are those of the study, so that Ax's own analyses are about them. Ax gets the space without conditions:
an inactive parameter has its middle value, the same in all trials without it. Parameters with a single value are left
out. What Ax cannot hold is expressed otherwise:

    categorical     the texts of its choices (a list may mix types); their numbers where two texts are equal
    ordinal, steps  ordered choices; the whole range for over 100 steps
    narrow range    the coordinate in [0, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

from ..spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter, StudySpec
from ..trial import Params, ParamValue
from .cube import coordinate_of, grid_index, grid_size, grid_value, value_at, varies

AxValue = bool | int | float | str
AxValues = Mapping[str, bool | int | float | str | None]
Config = RangeParameterConfig | ChoiceParameterConfig

_MAX_ORDERED: Final = 100
_NARROW: Final = 1e-4
"""Ax rejects ranges below 1.5e-5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Translation:
    config: Config
    encode: Callable[[ParamValue], AxValue]
    decode: Callable[[AxValue], ParamValue]


class AxSpace:
    """Translates the configurations of one space to Ax and back."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._middle = {key: value_at(parameter, 0.5) for key, parameter in spec.space.items()}
        self._varying = {
            key: _translation(key, parameter) for key, parameter in spec.space.items() if varies(parameter)
        }

    @property
    def parameters(self) -> list[Config]:
        """The parameters for `Client.configure_experiment`; empty if no parameter varies."""
        return [translation.config for translation in self._varying.values()]

    def encode(self, params: Params) -> dict[str, AxValue]:
        """Return a configuration in Ax's terms, with inactive parameters at their middle value."""
        return {
            key: translation.encode(params.get(key, self._middle[key])) for key, translation in self._varying.items()
        }

    def encode_only(self, values: Params) -> dict[str, AxValue]:
        """Return those of our values that belong to parameters that vary, in Ax's terms."""
        return {key: translation.encode(values[key]) for key, translation in self._varying.items() if key in values}

    def values(self, values: AxValues) -> dict[str, ParamValue]:
        """Return our values of those parameters that `values`, in Ax's terms, has; also inactive ones."""
        known = {key: value for key, value in values.items() if value is not None}
        return {key: translation.decode(known[key]) for key, translation in self._varying.items() if key in known}

    def decode(self, values: AxValues) -> dict[str, ParamValue]:
        """Return the configuration of Ax's values, without inactive parameters."""
        return self._spec.active({**self._middle, **self.values(values)})


def _translation(key: str, parameter: AnyParameter) -> _Translation:
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return _choices(key, parameter.choices, is_ordered=isinstance(parameter, OrdinalParameter))
    if parameter.step is not None and not parameter.log and parameter.step != 1:
        return _stepped(key, parameter)
    if isinstance(parameter, IntParameter):
        low, high = parameter.low, parameter.high
        return _Translation(
            config=_range(key, parameter, "int"),
            encode=int,
            decode=lambda value: min(max(round(float(value)), low), high),
        )
    return _real(key, parameter)


def _real(key: str, parameter: FloatParameter) -> _Translation:
    if parameter.high - parameter.low < _NARROW:
        return _Translation(
            config=RangeParameterConfig(name=key, bounds=(0.0, 1.0), parameter_type="float"),
            encode=lambda value: coordinate_of(parameter, float(value)),
            decode=lambda value: value_at(parameter, float(value)),
        )
    return _Translation(
        config=_range(key, parameter, "float"),
        encode=float,
        decode=lambda value: min(max(float(value), parameter.low), parameter.high),
    )


def _stepped(key: str, parameter: FloatParameter | IntParameter) -> _Translation:
    if grid_size(parameter) <= _MAX_ORDERED:
        return _choices(key, [grid_value(parameter, place) for place in range(grid_size(parameter))])
    is_int = isinstance(parameter, IntParameter)
    return _Translation(
        config=_range(key, parameter, "int" if is_int else "float"),
        encode=int if is_int else float,
        decode=lambda value: grid_value(parameter, grid_index(parameter, float(value))),
    )


def _choices(key: str, choices: Sequence[ParamValue], *, is_ordered: bool = True) -> _Translation:
    numbers = [choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    names: list[AxValue]
    if is_ordered and len(numbers) == len(choices):
        kind: Literal["int", "float"] = "int" if all(isinstance(number, int) for number in numbers) else "float"
        values = [int(number) if kind == "int" else float(number) for number in numbers]
        names = list(values)
        config = ChoiceParameterConfig(name=key, values=values, parameter_type=kind, is_ordered=True)
    else:
        texts = [str(choice) for choice in choices]
        texts = texts if len(set(texts)) == len(texts) else [str(place) for place in range(len(choices))]
        # Ax treats two values as ordered in any case, and warns unless `is_ordered` says so.
        is_ordered = is_ordered or len(texts) == 2
        names = list(texts)
        config = ChoiceParameterConfig(name=key, values=texts, parameter_type="str", is_ordered=is_ordered)
    return _Translation(
        config=config,
        encode=lambda value: names[choices.index(value)],
        decode=lambda value: choices[names.index(value)],
    )


def _range(key: str, parameter: FloatParameter | IntParameter, kind: Literal["int", "float"]) -> RangeParameterConfig:
    last = grid_value(parameter, grid_size(parameter) - 1) if parameter.step is not None else parameter.high
    bounds = parameter.low, last
    scaling: Literal["log"] | None = "log" if parameter.log else None
    return RangeParameterConfig(name=key, bounds=bounds, parameter_type=kind, scaling=scaling)
