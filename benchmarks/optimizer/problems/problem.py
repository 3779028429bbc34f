"""What a benchmark problem is: a search space and what evaluating a configuration gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpo.spec import AnyParameter, Objective
from hpo.trial import Params

Values = tuple[float, ...]
"""One value per objective, in the objectives' own directions."""

LOSS: Final = Objective.model_validate({"metric": "val_loss"})
ACCURACY: Final = Objective.model_validate({"metric": "val_top1"})
SIZE: Final = Objective.model_validate({"metric": "parameters_millions"})
SECONDS: Final = Objective.model_validate({"metric": "epoch_seconds"})


class ProblemError(Exception):
    """The problem cannot be used here."""


class ProblemMissing(ProblemError):
    """The data or the package of the problem is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem whose answer is known well enough to measure regret.

    `space` is written in names that a study spec accepts, so that our optimizer is called as a service would call it.
    """

    name: str
    space: Mapping[str, AnyParameter]
    objectives: tuple[Objective, ...]
    truth: Callable[[Sequence[Params]], NDArray[np.float64]]
    """The mean outcome of each configuration, (configurations, objectives)."""
    noise: Callable[[Params, np.random.Generator], Values] | None = None
    """One noisy outcome; None where evaluations repeat exactly."""
    epochs: int = 1
    curve: Callable[[Params], NDArray[np.float64]] | None = None
    """The first objective after each of `epochs` epochs; it ends with the truth."""
    memory_gib: Callable[[Params], float] | None = None
    capacity_gib: float | None = None
    """A configuration whose memory exceeds this fails."""
    optimum: Values | None = None
    """The best reachable truth of a single objective, where it is known in closed form or from a whole table."""
    median: float | None = None
    """The median truth of a random configuration, where a whole table gives it."""
    reference_point: Values | None = None
    """The corner from which the hypervolume of several objectives is measured, as losses."""
    hypervolume: float | None = None
    """The hypervolume of the whole Pareto front, where it is known."""

    def true(self, params: Params) -> Values:
        """Return the mean outcome of one configuration."""
        return tuple(float(value) for value in self.truth([params])[0])

    def evaluate(self, params: Params, rng: np.random.Generator) -> Values:
        """Return one outcome as a training run would report it."""
        return self.true(params) if self.noise is None else self.noise(params, rng)

    def losses(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn values (..., objectives) into ones where less is better."""
        return np.asarray(values, dtype=np.float64) * self.signs

    @property
    def signs(self) -> NDArray[np.float64]:
        """1 for each objective that is minimized, -1 for the others."""
        return np.array([1.0 if objective.direction == "minimize" else -1.0 for objective in self.objectives])

    def fits(self, params: Params) -> bool:
        """Whether the configuration fits into memory."""
        return self.memory_gib is None or self.capacity_gib is None or self.memory_gib(params) <= self.capacity_gib


def row_by_row(function: Callable[[Params], Values]) -> Callable[[Sequence[Params]], NDArray[np.float64]]:
    """Make a `truth` of a function of one configuration."""

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        return np.array([function(params) for params in many], dtype=np.float64)

    return truth
