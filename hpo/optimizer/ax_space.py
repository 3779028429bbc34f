"""A search space in Ax's terms, and configurations translated in both directions.

Ax gets the space without conditions: an inactive parameter has its middle value, the same in all trials without it.
Parameters are called `p0`, `p1`, ... (our names contain dots). A categorical choice is named by its index (a list may
mix types). Ordinals and stepped ranges are integer indices (Ax cannot combine step and log, and turns steps into
unrelated choices). Reals are coordinates in [0, 1] (Ax rejects narrow ranges). Parameters with a single value are left
out.
"""

from __future__ import annotations

from collections.abc import Mapping

from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

from ..spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter, StudySpec
from ..trial import Params, ParamValue
from .cube import coordinate_of, grid_index, grid_size, grid_value, value_at, varies

AxValue = bool | int | float | str


class AxSpace:
    """Translates the configurations of one space to Ax and back."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._names = {key: f"p{place}" for place, key in enumerate(spec.space)}
        self._middle = {key: value_at(parameter, 0.5) for key, parameter in spec.space.items()}
        self._varying = {key: parameter for key, parameter in spec.space.items() if varies(parameter)}

    @property
    def parameters(self) -> list[RangeParameterConfig | ChoiceParameterConfig]:
        """The parameters for `Client.configure_experiment`; empty if no parameter varies."""
        return [_config(self._names[key], parameter) for key, parameter in self._varying.items()]

    def encode(self, params: Params) -> dict[str, AxValue]:
        """Return a configuration in Ax's terms, with inactive parameters at their middle value."""
        values = {key: params.get(key, self._middle[key]) for key in self._varying}
        return {self._names[key]: _encode(self._varying[key], value) for key, value in values.items()}

    def decode(self, values: Mapping[str, AxValue]) -> dict[str, ParamValue]:
        """Return the configuration of Ax's values, without inactive parameters."""
        full = dict(self._middle)
        for key, parameter in self._varying.items():
            full[key] = _decode(parameter, values[self._names[key]])
        return self._spec.active(full)


def _is_grid(parameter: AnyParameter) -> bool:
    """Return whether Ax searches the parameter by the indices of its values."""
    return isinstance(parameter, FloatParameter | IntParameter) and parameter.step is not None and not parameter.log


def _config(name: str, parameter: AnyParameter) -> RangeParameterConfig | ChoiceParameterConfig:
    if isinstance(parameter, CategoricalParameter):
        # Ax treats two values as ordered in any case, and warns unless `is_ordered` says so.
        places = [str(place) for place in range(len(parameter.choices))]
        return ChoiceParameterConfig(
            name=name, values=places, parameter_type="str", is_ordered=len(parameter.choices) == 2
        )
    if isinstance(parameter, OrdinalParameter):
        places_in_order = list(range(len(parameter.choices)))
        return ChoiceParameterConfig(name=name, values=places_in_order, parameter_type="int", is_ordered=True)
    if _is_grid(parameter):
        return RangeParameterConfig(name=name, bounds=(0, grid_size(parameter) - 1), parameter_type="int")
    if isinstance(parameter, IntParameter):
        bounds = (parameter.low, parameter.high)
        return RangeParameterConfig(name=name, bounds=bounds, parameter_type="int", scaling="log")
    return RangeParameterConfig(name=name, bounds=(0.0, 1.0), parameter_type="float")


def _encode(parameter: AnyParameter, value: ParamValue) -> AxValue:
    if isinstance(parameter, CategoricalParameter):
        return str(parameter.choices.index(value))
    if isinstance(parameter, OrdinalParameter):
        return parameter.choices.index(value)
    if _is_grid(parameter):
        return grid_index(parameter, value)
    return int(value) if isinstance(parameter, IntParameter) else coordinate_of(parameter, float(value))


def _decode(parameter: AnyParameter, value: AxValue) -> ParamValue:
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return parameter.choices[int(value)]
    if _is_grid(parameter):
        return grid_value(parameter, round(float(value)))
    if isinstance(parameter, IntParameter):
        return min(max(round(float(value)), parameter.low), parameter.high)
    return value_at(parameter, float(value))
