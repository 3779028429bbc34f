"""Optuna's samplers behind the interface of generators, for comparison."""

from __future__ import annotations

import warnings
from typing import Any, Final, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, Trial, create_trial
from optuna.trial import TrialState as OptunaState

from ..optuna_view.trials import CONSTRAINTS_KEY, directions, distribution
from ..results.outcome import objective_values, violations
from ..spec import AnyParameter, OrdinalParameter, StudySpec
from ..spec.parameters import matches
from ..spec.values import count_of
from ..trial import ParamValue, Suggestion, TrialState
from .cube import ParamsKey, key_of
from .generator import GeneratorError
from .history import History, Observation
from .keeping import nearest_allowed

_MAX_REPEATED_DRAWS: Final = 10
"""How often a sampler is asked again when its proposal is already known, or breaks a rule."""
_POPULATION: Final = 20
"""Trials per generation of NSGA-II; with Optuna's 50 most studies would never leave the first generation."""

_MOST_VALUES: Final = 1_000_000
"""Optuna's Gaussian process lists all values of a stepped range and of integers."""


class OptunaGenerator:
    """A sampler of Optuna, applied to an in-memory study that is built from the history each time.

    Ordinals are searched by their indices, as integers. TPE learns from trials that were stopped early; the Gaussian
    process and NSGA-II read completed trials only (NSGA-II's generations are the completed trials in their order).
    """

    def __init__(self, name: Literal["tpe", "gp", "nsga2"]) -> None:
        self.name: str = name
        # Every proposal makes a study, and Optuna prints a message for each.
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Return up to `n` configurations, each planned with the ones before it pending."""
        self._check_memory(history.spec)
        space = {key: _distribution(parameter) for key, parameter in history.spec.space.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study = optuna.create_study(
                directions=directions(history.spec), sampler=self._sampler(history), study_name=history.spec.name
            )
            study.add_trials(_trials(history, space))
            found: dict[ParamsKey, dict[str, ParamValue]] = {}
            broken: dict[str, ParamValue] | None = None
            for _ in range(n + _MAX_REPEATED_DRAWS):
                # A Gaussian process would propose the same again.
                if len(found) == n or (broken is not None and self.name == "gp"):
                    break
                params = _draw(history.spec, study.ask(), space)
                if not history.spec.allows(params):
                    broken = broken or params
                elif key_of(params) not in history.taken:
                    found.setdefault(key_of(params), params)
        if not found and broken is not None:
            moved = nearest_allowed(history.spec, broken, history.taken)
            found = {} if moved is None else {key_of(moved): moved}
        if not found:
            draws = n + _MAX_REPEATED_DRAWS
            raise GeneratorError(f"the {self.name} sampler found no new configuration in {draws} draws")
        return [Suggestion(params=params, generator=self.name) for params in found.values()]

    def _check_memory(self, spec: StudySpec) -> None:
        """Raise GeneratorError for a range that Optuna's Gaussian process would list in more memory than there is."""
        if self.name != "gp":
            return
        for key, parameter in spec.space.items():
            if (count_of(parameter) or 0) > _MOST_VALUES:
                raise GeneratorError(f"the gp sampler cannot search the {_MOST_VALUES:,} and more values of {key}")

    def _sampler(self, history: History) -> BaseSampler:
        entropy = np.random.SeedSequence([history.spec.optimizer.seed, len(history.records)])
        seed = int(entropy.generate_state(1)[0])
        if self.name == "gp":
            return GPSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
        if self.name == "nsga2":
            return NSGAIISampler(seed=seed, population_size=_POPULATION)
        return TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)


def _distribution(parameter: AnyParameter) -> BaseDistribution:
    if isinstance(parameter, OrdinalParameter):
        return IntDistribution(0, len(parameter.choices) - 1)
    return distribution(parameter)


def _encode(parameter: AnyParameter, value: ParamValue) -> ParamValue:
    return parameter.choices.index(value) if isinstance(parameter, OrdinalParameter) else value


def _draw(spec: StudySpec, trial: Trial, space: dict[str, BaseDistribution]) -> dict[str, ParamValue]:
    """Return a drawn configuration; parents are drawn before the parameters they switch on."""
    params: dict[str, ParamValue] = {}
    for key in spec.parameter_order:
        parameter = spec.space[key]
        if not matches(parameter.when, params):
            continue
        drawn = trial._suggest(key, space[key])
        params[key] = parameter.choices[drawn] if isinstance(parameter, OrdinalParameter) else drawn
    return {key: params[key] for key in spec.space if key in params}


def _trials(history: History, space: dict[str, BaseDistribution]) -> list[FrozenTrial]:
    found: list[FrozenTrial] = []
    completed = 0
    for seen in history.observations:
        # NSGA-II reads a trial's generation from an attribute, which it would have set in a lasting study.
        found.append(_trial(history.spec, seen, space, {"NSGAIISampler:generation": completed // _POPULATION}))
        completed += seen.state is TrialState.COMPLETED
    return found


def _trial(
    spec: StudySpec, seen: Observation, space: dict[str, BaseDistribution], attributes: dict[str, Any]
) -> FrozenTrial:
    params = {key: _encode(spec.space[key], value) for key, value in seen.params.items()}
    values = objective_values(spec, seen.metrics)
    state = {TrialState.COMPLETED: OptunaState.COMPLETE, TrialState.STOPPED: OptunaState.PRUNED}.get(
        seen.state, OptunaState.RUNNING
    )
    steps = {seen.step: values[0]} if values is not None and seen.step > 0 and len(spec.objectives) == 1 else {}
    if spec.constraints and seen.metrics:
        attributes = {**attributes, CONSTRAINTS_KEY: list(violations(spec, seen.metrics))}
    return create_trial(
        state=state,
        values=None if state is OptunaState.RUNNING else values,
        params=params,
        distributions={key: space[key] for key in params},
        intermediate_values=steps,
        system_attrs=attributes,
    )
