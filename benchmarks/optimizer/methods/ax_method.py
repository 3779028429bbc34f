"""The Ax Client with its default strategy.

Parameters are declared as in Ax's tutorials: ranges (logarithmic where ours are), ordered choices by index, unordered
choices by name. The space is flat: an inactive parameter has a value that is ignored. The configurations of the start
are attached, and count as Ax's initialization.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from hpo.optimizer.cube import value_at
from hpo.spec import AnyParameter, CategoricalParameter, IntParameter, OrdinalParameter
from hpo.trial import FailureKind, Params, ParamValue

from ..problems import Values
from ..study import spec_of
from .method import Origin, Setting

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ax.api.client import Client
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
    from ax.utils.common.logger import set_ax_logger_levels


class AxMethod:
    """One `ax.api.client.Client`."""

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(1)
        set_ax_logger_levels(logging.ERROR)
        self._problem = setting.problem
        self._spec = spec_of(setting.problem, trials=1)
        self._names = {key: f"p{place}" for place, key in enumerate(setting.problem.space)}
        self._finished: list[Values] = []
        self._client = Client(random_seed=setting.seed)
        parameters = [_config(self._names[key], parameter) for key, parameter in setting.problem.space.items()]
        with _quiet():
            self._client.configure_experiment(parameters=parameters, name=setting.problem.name)
            self._client.configure_optimization(objective=self._objective())
            self._client.configure_generation_strategy(method="fast", initialization_random_seed=setting.seed)

    def attach(self, params: Params) -> int:
        """Return the trial of an attached configuration, with inactive parameters at their middle value."""
        filled = {key: params.get(key, value_at(parameter, 0.5)) for key, parameter in self._problem.space.items()}
        encoded = {self._names[key]: _encode(self._problem.space[key], value) for key, value in filled.items()}
        with _quiet():
            return int(self._client.attach_trial(encoded))

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        """Return the next trial and its configuration, without inactive parameters."""
        with _quiet():
            ((index, values),) = self._client.get_next_trials(1).items()
        params = {key: _decode(self._problem.space[key], values[name]) for key, name in self._names.items()}
        return int(index), self._spec.active(params)

    def report(self, trial: int, step: int, value: float) -> bool:
        """Raise NotImplementedError: the Client is only measured without learning curves."""
        raise NotImplementedError("Ax is not run with learning curves here")

    def promoted(self) -> None:
        """Return None: no trial is ever paused."""

    def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
        """Complete the trial."""
        self._finished.append(values)
        names = [objective.metric for objective in self._problem.objectives]
        with _quiet():
            self._client.complete_trial(trial, raw_data=dict(zip(names, values, strict=True)))

    def stop(self, trial: int) -> bool:
        """Return False, after marking it stopped early."""
        self._client.mark_trial_early_stopped(trial)
        return False

    def fail(self, trial: int, kind: FailureKind = FailureKind.OOM) -> None:
        """Complete the trial with the worst value seen, because Ax's model ignores failed trials."""
        worst = min if self._problem.signs[0] < 0 else max
        self.tell(trial, (worst((values[0] for values in self._finished), default=0.0),))

    def origin(self, trial: int) -> Origin:
        """Return that it comes from the Client's strategy, which is not asked for its node."""
        return Origin(generator="ax", is_model=True)

    def beliefs(self) -> dict[int, tuple[float, float]]:
        """Return nothing: what it believes is not known."""
        return {}

    def best(self) -> None:
        """Return None: the best observed trial."""

    def _objective(self) -> str:
        signs = {"maximize": "", "minimize": "-"}
        return ", ".join(f"{signs[found.direction]}{found.metric}" for found in self._problem.objectives)


def _quiet() -> Any:
    return warnings.catch_warnings(action="ignore")


def _config(name: str, parameter: AnyParameter) -> RangeParameterConfig | ChoiceParameterConfig:
    if isinstance(parameter, CategoricalParameter):
        places: list[Any] = [str(place) for place in range(len(parameter.choices))]
        return ChoiceParameterConfig(name=name, values=places, parameter_type="str", is_ordered=len(places) == 2)
    if isinstance(parameter, OrdinalParameter):
        places = list(range(len(parameter.choices)))
        return ChoiceParameterConfig(name=name, values=places, parameter_type="int", is_ordered=True)
    return RangeParameterConfig(
        name=name,
        bounds=(parameter.low, parameter.high),
        parameter_type="int" if isinstance(parameter, IntParameter) else "float",
        scaling="log" if parameter.log else None,
    )


def _encode(parameter: AnyParameter, value: ParamValue) -> Any:
    if isinstance(parameter, CategoricalParameter):
        return str(parameter.choices.index(value))
    return parameter.choices.index(value) if isinstance(parameter, OrdinalParameter) else value


def _decode(parameter: AnyParameter, value: Any) -> ParamValue:
    if isinstance(parameter, CategoricalParameter | OrdinalParameter):
        return parameter.choices[int(value)]
    number = round(float(value)) if isinstance(parameter, IntParameter) else float(value)
    return min(max(number, parameter.low), parameter.high)
