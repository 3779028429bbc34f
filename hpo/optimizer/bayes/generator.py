"""The generator of suggestions: it fits the models, and searches where the acquisition is best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from ...arrays import Array
from ...trial import Params, Suggestion
from ..cost import expected_cost
from ..cube import ParamsKey, key_of, size
from ..generator import GeneratorError
from ..history import PENDING, History
from ..prior import has_prior
from .acquisition import Acquisition
from .completion import complete
from .curves import Outcome, outcomes
from .earlier import promising, space_of, with_earlier
from .improvement import is_dominated
from .models import Data, Metric, feasibility, model
from .prior import Belief, power
from .search import best_of, every_row, free, search
from .space import Space
from .weighted import Weight, WeightedAcquisition

_FUNCTION_SAMPLES = 32
_MIN_SAMPLES_PER_MEMBER = 8
"""Samples of the function at the base points: in all, and at least per sample of the hyperparameters."""
_INCUMBENTS_PER_OBJECTIVE = 16
MAX_CENTRES = 8
"""How many of the best configurations of this study the search looks around."""
_VIOLATION_STEP = 0.2
"""Violations of the constraints that differ by less than this share of the spread of outcomes count as the same."""
ENUMERATE_UP_TO_ROWS = 2000
"""Finite spaces up to this size are enumerated."""
SECOND_VIEW_EVERY = 3
"""One in this many proposals uses the second view of the outcomes (`models.model`), so that a search that is stuck
under one transform of them can get away."""


class BayesGenerator:
    """Proposes by expected improvement (hypervolume improvement for several objectives) under the constraints."""

    def __init__(self, name: str = "bayes") -> None:
        self.name = name

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Return up to `n` configurations, each planned with the ones before it pending."""
        return self._plan(history, n, {})

    def complete(self, history: History, guess: Params) -> Suggestion:
        """Return the best new configuration that has the values of `guess`."""
        return self._plan(history, 1, guess)[0]

    def _plan(self, history: History, n: int, guess: Params) -> list[Suggestion]:
        space = _varying(history)
        count = size(history.spec, limit=ENUMERATE_UP_TO_ROWS)
        left = n if count is None else count - sum(history.spec.allows(dict(key)) for key in history.taken)
        if left <= 0:
            raise GeneratorError("every configuration of this space has been tried")
        with _fitting():
            plan = _Plan(history, space, self.name, is_small=count is not None)
            found = [suggestion for _ in range(min(n, left)) if (suggestion := plan.next(guess)) is not None]
        if not found:
            raise GeneratorError("the search found no new configuration")
        return found


def _varying(history: History) -> Space:
    space = space_of(history)
    if not space.axes:
        raise GeneratorError("no parameter of this space has more than one value")
    return space


@contextmanager
def _fitting() -> Iterator[None]:
    """Limit the threads of matrix products, and turn their errors into ours."""
    try:
        # Matrices this small are slower on several threads, and many times slower on a loaded machine.
        with _blas().limit(limits=1, user_api="blas"):
            yield
    except np.linalg.LinAlgError as error:
        raise GeneratorError(f"a model could not be fitted ({error})") from error


def _models(
    history: History, space: Space, known: Sequence[Outcome], *, second_view: bool = False
) -> tuple[list[Metric], Array]:
    """Return the models of a history with the outcomes `known`, and the rows of these."""
    if not known:
        raise GeneratorError("no trial has an outcome yet")
    rows = np.stack([space.encode(outcome.params) for outcome in known])
    data = with_earlier(history, space, Data(points=space.embed(rows), columns=space.columns, outcomes=known))
    return model(history.spec, data, second_view=second_view), rows


class _Plan:
    """The models of one history, and the configurations planned with them."""

    def __init__(self, history: History, space: Space, name: str, *, is_small: bool) -> None:
        second_view = len(history.records) % SECOND_VIEW_EVERY == SECOND_VIEW_EVERY - 1
        self._metrics, rows = _models(history, space, outcomes(history), second_view=second_view)
        self._space, self._name = space, name
        self._taken: set[ParamsKey] = set(history.taken)
        self._pending = [space.encode(seen.params) for seen in history.observations if seen.state in PENDING]
        self._everything = every_row(space) if is_small else None
        self._incumbents = incumbents(self._metrics, space.embed(rows), rows)
        self._centres = np.concatenate([self._incumbents[:MAX_CENTRES], promising(history, space)])
        self._has_constraints = bool(history.spec.constraints)
        self._cost = expected_cost(history) if history.spec.budget.gpu_hours is not None else None
        self._weights: list[Weight] = []
        if has_prior(history.spec):
            self._weights.append(Belief(space=space, power=power(history.spec, len(history.records))))
        if history.runnability is not None:
            self._weights.append(history.runnability.weights)
        self._seed = (history.spec.optimizer.seed, len(history.records))

    def next(self, guess: Params) -> Suggestion | None:
        """Return one more configuration, with the values of `guess`; None if the search found no new one.

        The configurations planned before it count as pending.
        """
        acquisition = self._acquisition()
        row = self._completion(acquisition, guess) if guess else self._search(acquisition)
        if row is None:
            return None
        point = self._space.embed(row[None])
        mean, sd = self._metrics[0].predict(point)
        chance = feasibility(self._metrics, point) if self._has_constraints else np.array([math.nan])
        # The coordinates of a guess may differ from it in the last digit.
        params = {**self._space.decode(row), **guess}
        self._taken.add(key_of(params))
        self._pending.append(row)
        return Suggestion(
            params=params,
            generator=self._name,
            predicted_mean=finite_or_none(mean),
            predicted_sd=finite_or_none(sd),
            predicted_feasibility=finite_or_none(chance),
        )

    def _acquisition(self) -> Acquisition:
        base = np.array([*self._incumbents, *self._pending])
        members = self._metrics[0].modelled.process.members
        rng = np.random.default_rng([*self._seed, len(self._pending), 1])
        samples = max(_FUNCTION_SAMPLES // members, _MIN_SAMPLES_PER_MEMBER)
        half = rng.standard_normal((len(self._metrics), members, samples // 2, len(base)))
        normals = np.concatenate([half, -half], axis=2)
        models = [metric.modelled for metric in self._metrics]
        return WeightedAcquisition(self._space, models, base, normals, self._weights)

    def _search(self, acquisition: Acquisition) -> Array | None:
        if self._everything is None:
            seed = [*self._seed, len(self._pending), 2]
            return search(self._space, acquisition, self._centres, self._is_new, seed, price=self._price)
        left = np.array([row for row in self._everything if self._is_new(row)])
        return best_of(acquisition, left, price=self._price) if len(left) else None

    def _completion(self, acquisition: Acquisition, guess: Params) -> Array | None:
        if self._everything is None:
            return complete(self._space, acquisition, guess, self._is_new, self._seed[0])
        fixed = guess.items()
        left = [row for row in self._everything if fixed <= self._space.decode(row).items() and self._is_new(row)]
        return best_of(acquisition, np.array(left)) if left else None

    def _price(self, rows: Array) -> Array:
        """Return the log costs of rows; 0 unless the budget is one of GPU hours and costs can be fixed."""
        if self._cost is None:
            return free(rows)
        return np.log([self._cost(self._space.decode(row)) for row in rows])

    def _is_new(self, row: Array) -> bool:
        return key_of(self._space.decode(row)) not in self._taken


def finite_or_none(found: Array) -> float | None:
    """Return the single value of an array, or None if it is not finite: the store accepts finite numbers only."""
    return float(found[0]) if math.isfinite(found[0]) else None


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def incumbents(metrics: Sequence[Metric], points: Array, rows: Array) -> Array:
    """Return the rows that may be the best ones, best first: feasible before infeasible, then by the models' means."""
    means = [metric.modelled.process.mean(points) for metric in metrics]
    values = np.stack(
        [mean for mean, metric in zip(means, metrics, strict=True) if metric.modelled.is_objective], axis=1
    )
    short = np.zeros(len(rows))
    for mean, metric in zip(means, metrics, strict=True):
        short += np.maximum(metric.modelled.threshold - mean, 0.0)
    behind = is_dominated(values) if values.shape[1] > 1 else np.zeros(len(rows), dtype=bool)
    order = np.lexsort((-values.sum(axis=1), behind, np.floor(short / _VIOLATION_STEP)))
    return np.asarray(rows[order[: _INCUMBENTS_PER_OBJECTIVE * values.shape[1]]])
