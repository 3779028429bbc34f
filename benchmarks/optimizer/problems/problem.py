"""A benchmark problem: a search space, and the outcome of evaluating a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpo.spec import AnyParameter, Objective
from hpo.trial import Params

from .training import Training

Values = tuple[float, ...]
"""One value per objective, in the objectives' own directions."""

LOSS: Final = Objective.model_validate({"metric": "val_loss", "direction": "minimize"})
ACCURACY: Final = Objective.model_validate({"metric": "val_top1", "direction": "maximize"})
SIZE: Final = Objective.model_validate({"metric": "parameters_millions", "direction": "minimize"})
SECONDS: Final = Objective.model_validate({"metric": "epoch_seconds", "direction": "minimize"})


class ProblemError(Exception):
    """The problem cannot be used here."""


class ProblemMissing(ProblemError):
    """The data or the package of the problem is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem with a known optimum, so that regret can be measured.

    `space` uses names that a study spec accepts, so that our optimizer is used as in the service.
    """

    name: str
    space: Mapping[str, AnyParameter]
    objectives: tuple[Objective, ...]
    truth: Callable[[Sequence[Params]], NDArray[np.float64]]
    """The mean outcome of each configuration, (configurations, objectives)."""
    noise: Callable[[Params, np.random.Generator], Values] | None = None
    """Draws one noisy outcome; None if evaluations are deterministic."""
    epochs: int = 1
    curve: Callable[[Params], NDArray[np.float64]] | None = None
    """The first objective after each of `epochs` epochs; it ends with the truth."""
    training: Callable[[Params, np.random.Generator], Training] | None = None
    """Draws what one training reports, with its noise, its durations and its failure; its mean end is the truth."""
    end: Callable[[Params], float] | None = None
    """The mean of the last value that a training reports, where the truth was measured on other data; else None."""
    memory_gib: Callable[[Params], float] | None = None
    capacity_gib: float | None = None
    """A configuration that needs more memory than this fails."""
    optimum: Values | None = None
    """The best true value of a single objective, if it is known in closed form or from a whole table."""
    median: float | None = None
    """The median true value of random configurations, if it is known from a whole table."""
    reference_point: Values | None = None
    """The corner from which the hypervolume of several objectives is measured, as losses."""
    hypervolume: float | None = None
    """The hypervolume of the whole Pareto front, if it is known."""

    def true(self, params: Params) -> Values:
        """Return the mean outcome of one configuration."""
        return tuple(float(value) for value in self.truth([params])[0])

    def evaluate(self, params: Params, rng: np.random.Generator) -> Values:
        """Return one outcome, with noise, as a training run would report it."""
        return self.true(params) if self.noise is None else self.noise(params, rng)

    def losses(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values (..., objectives) with signs such that less is better."""
        return np.asarray(values, dtype=np.float64) * self.signs

    @property
    def signs(self) -> NDArray[np.float64]:
        """1 for each objective that is minimized, -1 for the others."""
        return np.array([1.0 if objective.direction == "minimize" else -1.0 for objective in self.objectives])

    def fits(self, params: Params) -> bool:
        """Return whether the configuration fits into memory."""
        return self.memory_gib is None or self.capacity_gib is None or self.memory_gib(params) <= self.capacity_gib


def row_by_row(function: Callable[[Params], Values]) -> Callable[[Sequence[Params]], NDArray[np.float64]]:
    """Return a `truth` that calls a function of one configuration for each."""

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        return np.array([function(params) for params in many], dtype=np.float64)

    return truth
