"""Proposing configurations: `create_optimizer(spec)`, a library without a database.

Neither the package nor `create_optimizer` imports torch or Ax: the first proposal of a model does. The process that
serves the studies of a database is `hpo.service.optimizer_process`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..spec import StudySpec
from ..trial import EarlierTrial, Params
from .ask_tell import Optimizer, startup_trials
from .generator import Generator, GeneratorError
from .memory import Device, Fleet

__all__ = [
    "Device",
    "Fleet",
    "Generator",
    "GeneratorError",
    "Optimizer",
    "create_generator",
    "create_optimizer",
    "startup_trials",
]


def create_optimizer(
    spec: StudySpec,
    *,
    fleet: Fleet | None = None,
    guesses: Sequence[Params] | None = None,
    earlier: Sequence[EarlierTrial] = (),
) -> Optimizer:
    """Return the optimizer that `spec.optimizer` names.

    `fleet` describes the devices that trials run on, if they are known. `guesses` are configurations to try first
    (None: those of the spec). `earlier` are trials of other studies to learn from, as returned by
    `hpo.results.warm_start.taken_over`.
    """
    return Optimizer(spec, partial(create_generator, spec), fleet=fleet, guesses=guesses, earlier=earlier)


def create_generator(spec: StudySpec) -> Generator:
    """Return the generator named by `spec.optimizer.name`; its module is only imported now."""
    match spec.optimizer.name:
        case "ax":
            from .ax_generator import AxGenerator

            return AxGenerator()
        case "tpe" | "gp" | "nsga2":
            from .optuna_generator import OptunaGenerator

            return OptunaGenerator(spec.optimizer.name)
        case "random":
            from .sobol import random_generator

            return random_generator()
        case "sobol":
            from .sobol import sobol_generator

            return sobol_generator()
