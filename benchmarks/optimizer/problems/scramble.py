"""The same problem with its choices relabelled and its dimensions reflected: a method must not rely on either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.optimizer.cube import grid_index, grid_size, grid_value
from hpo.spec import AnyParameter, CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter
from hpo.trial import Params, ParamValue

from .problem import Problem, Values
from .training import Training

Decode = Callable[[ParamValue], ParamValue]


def scrambled(problem: Problem, seed: int) -> Problem:
    """Return the problem with all categories renamed and reordered, and about half of the ordered dimensions reflected.

    Logarithmic ranges are reflected in the logarithm. Optimum and median do not change.
    """
    space, back = scrambled_space(problem.space, problem.name, seed)
    return _through(problem, space, back)


def scrambled_space(
    space: Mapping[str, AnyParameter], name: str, seed: int
) -> tuple[dict[str, AnyParameter], Callable[[Params], dict[str, ParamValue]]]:
    """Return the changed space of the problem `name`, and the function that maps its configurations back."""
    rng = np.random.default_rng([seed, *name.encode()])
    changed: dict[str, AnyParameter] = {}
    decoders: dict[str, Decode] = {}
    labels: dict[str, Mapping[Any, Any]] = {}
    for key, parameter in space.items():
        changed[key], decoders[key], labels[key] = _scramble(parameter, rng)
    for key, parameter in changed.items():
        when = {
            parent: [labels[parent].get(value, value) for value in values] for parent, values in parameter.when.items()
        }
        changed[key] = parameter.model_copy(update={"when": when})

    def back(params: Params) -> dict[str, ParamValue]:
        return {key: decoders[key](value) for key, value in params.items()}

    return changed, back


def _through(problem: Problem, space: Mapping[str, AnyParameter], back: Callable[[Params], Params]) -> Problem:
    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        return problem.truth([back(params) for params in many])

    def noise(params: Params, rng: np.random.Generator) -> Values:
        return problem.evaluate(back(params), rng)

    def curve(params: Params) -> NDArray[np.float64]:
        assert problem.curve is not None  # noqa: S101 - chosen below
        return problem.curve(back(params))

    def training(params: Params, rng: np.random.Generator) -> Training:
        assert problem.training is not None  # noqa: S101 - chosen below
        return problem.training(back(params), rng)

    def end(params: Params) -> float:
        assert problem.end is not None  # noqa: S101 - chosen below
        return problem.end(back(params))

    def memory(params: Params) -> float:
        assert problem.memory_gib is not None  # noqa: S101 - chosen below
        return problem.memory_gib(back(params))

    return replace(
        problem,
        space=space,
        truth=truth,
        noise=None if problem.noise is None else noise,
        curve=None if problem.curve is None else curve,
        training=None if problem.training is None else training,
        end=None if problem.end is None else end,
        memory_gib=None if problem.memory_gib is None else memory,
    )


def _scramble(parameter: AnyParameter, rng: np.random.Generator) -> tuple[AnyParameter, Decode, Mapping[Any, Any]]:
    """Return the changed parameter, the function that maps its values back, and the new labels of categories."""
    turned = bool(rng.random() < 0.5)
    if isinstance(parameter, CategoricalParameter):
        order = [int(place) for place in rng.permutation(len(parameter.choices))]
        new = {parameter.choices[old]: f"choice{place}" for place, old in enumerate(order)}
        old_of = {label: choice for choice, label in new.items()}
        changed = CategoricalParameter(type="categorical", choices=list(old_of), when=parameter.when)
        return changed, lambda value: old_of[str(value)], new
    if not turned:
        return parameter, lambda value: value, {}
    if isinstance(parameter, OrdinalParameter):
        choices = parameter.choices
        mirror = dict(zip(choices, reversed(choices), strict=True))
        return parameter, lambda value: mirror[value], mirror
    return parameter, _reflection(parameter), {}


def _reflection(parameter: FloatParameter | IntParameter) -> Decode:
    if parameter.step is not None and not parameter.log:
        last = grid_size(parameter) - 1
        return lambda value: grid_value(parameter, last - grid_index(parameter, value))

    def turn(value: ParamValue) -> ParamValue:
        x, low, high = float(value), float(parameter.low), float(parameter.high)
        found = low * high / x if parameter.log else low + high - x
        found = min(max(found, low), high)
        return round(found) if isinstance(parameter, IntParameter) else found

    return turn
