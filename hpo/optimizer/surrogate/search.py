"""The maximum of an acquisition in a mixed conditional space, by BoTorch's optimisers.

Small finite spaces are enumerated. In others, Sobol points and perturbations of the best configurations so far are
scored. From the best of them, BoTorch's continuous steps (L-BFGS-B) and discrete steps (the best neighbour) alternate.
The best configuration that is new is returned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.generation.gen import gen_candidates_scipy
from botorch.optim.optimize import OptimizeAcqfInputs, optimize_acqf_discrete
from botorch.optim.optimize_mixed import continuous_step, discrete_step
from threadpoolctl import ThreadpoolController
from torch import Tensor

from ...arrays import Array
from ..bayes.space import Axis, Space
from ..sobol import sobol_points
from .acquisition import Adjusted
from .candidates import around, best_new, distinct

_CLOUD_EXPONENT: Final = 9
"""2 to this power Sobol points are scored."""
_ASCENT_STARTS: Final = 5
_RELAX_FROM_VALUES: Final = 12
"""Discrete numbers with at least this many values are searched as continuous, then rounded."""
_ROUNDS: Final = 3
_CONTINUOUS_ITERATIONS: Final = 30
_LEAST_GAIN: Final = 1e-3
_STEP_UP_TO_VALUES: Final = 200
"""Those with more values take no steps to neighbours afterwards."""
_AT_ONCE: Final = 128
"""Rows that are scored at once, at most."""
_MOST_COVARIANCES: Final = 2**21
"""Entries of the covariance matrices of rows that are scored at once: models of several metrics make a whole matrix for
each row, of all that it is compared with."""

IsNew = Callable[[Array], bool]


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Make all arithmetic single-threaded and random numbers a function of `seed`; restore both afterwards.

    Matrices this small are slower on several threads, and many times slower on a loaded machine.
    """
    threads, state = torch.get_num_threads(), random.getstate()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]), _blas().limit(limits=1, user_api="blas"):
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            torch.set_num_threads(threads)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def best_of(acquisition: AcquisitionFunction, rows: Array) -> Array:
    """Return the best of rows."""
    choices, at_once = torch.as_tensor(rows), _at_once(acquisition)
    found, _ = optimize_acqf_discrete(acquisition, q=1, choices=choices, max_batch_size=at_once)
    return np.asarray(found[0].numpy())


def search(
    space: Space,
    acquisition: AcquisitionFunction,
    centres: Array,
    is_new: IsNew,
    *,
    fixed: Mapping[int, float],
    seed: int,
) -> Array | None:
    """Return the new row at which `acquisition` is best among those found; None if only known rows were found.

    `centres` are rows to look around, the best first; `fixed` are coordinates by axis that the row must have.
    """
    rng = np.random.default_rng(seed)
    cloud = space.from_unit(sobol_points(space.dimensions, int(rng.integers(2**31)), _CLOUD_EXPONENT))
    rows = np.concatenate([cloud, around(space, centres, rng)])
    for place, coordinate in fixed.items():
        rows[:, place] = coordinate
    given = {space.axes[place].key: space.axes[place].value(u) for place, u in fixed.items()}
    rows = space.with_allowed(rows, given)
    values = _values(acquisition, rows)
    reached, there = _Ascent(space, acquisition, fixed).improved(distinct(rows, values, _ASCENT_STARTS))
    rows, values = np.concatenate([reached, rows]), np.concatenate([there, values])
    return best_new(rows, values, is_new)


def _values(acquisition: AcquisitionFunction, rows: Array) -> Array:
    with torch.no_grad():
        found = [acquisition(part[:, None]) for part in torch.as_tensor(rows).split(_at_once(acquisition))]
    return np.asarray(torch.cat(found).numpy())


def _at_once(acquisition: AcquisitionFunction) -> int:
    if acquisition.model.num_outputs == 1:
        return _AT_ONCE
    inner: Any = acquisition
    while isinstance(inner, Adjusted):
        inner = inner.inner
    compared = len(inner.X_baseline) + (0 if inner.X_pending is None else len(inner.X_pending))
    return max(1, min(_AT_ONCE, _MOST_COVARIANCES // (compared + 1) ** 2))


@dataclass(frozen=True, slots=True)
class _Ascent:
    """Alternating steps of BoTorch from given rows."""

    space: Space
    acquisition: AcquisitionFunction
    fixed: Mapping[int, float]

    def improved(self, rows: Array) -> tuple[Array, Array]:
        """Return the rows reached and the values there; none is lower than that of its start."""
        values = _values(self.acquisition, rows)
        relaxed = self._places(lambda axis: axis.is_categorical or axis.count < _RELAX_FROM_VALUES)
        everything = self._places(lambda axis: True)
        if relaxed != everything:
            rows, values = self._better(rows, values, self.space.snap(self._climbed(rows, relaxed)))
        for _ in range(_ROUNDS):
            before = values
            rows, values = self._better(rows, values, self._climbed(rows, everything))
            if not everything:
                break
            rows, values = self._better(rows, values, self._stepped(rows))
            if (values - before).max() < _LEAST_GAIN:
                break
        return rows, values

    def _places(self, holds: Callable[[Axis], bool]) -> list[int]:
        """Return the axes that are not continuous and for which `holds`."""
        return [place for place, axis in enumerate(self.space.axes) if not axis.is_continuous and holds(axis)]

    def _better(self, rows: Array, values: Array, reached: Array) -> tuple[Array, Array]:
        there = _values(self.acquisition, reached)
        is_better = there > values
        return np.where(is_better[:, None], reached, rows), np.where(is_better, there, values)

    def _climbed(self, rows: Array, held: list[int]) -> Array:
        """Return the rows after a continuous step that leaves the axes `held` as they are."""
        if len(set(held) | set(self.fixed)) == self.space.dimensions:
            return rows
        places = torch.tensor([place for place in held if place not in self.fixed], dtype=torch.long)
        none = torch.empty(0, dtype=torch.long)
        found, _ = continuous_step(self._inputs(), places, none, torch.as_tensor(rows).clone())
        return np.asarray(found.detach().numpy())

    def _stepped(self, rows: Array) -> Array:
        """Return the rows after discrete steps."""
        axes = {place: axis for place, axis in enumerate(self.space.axes) if place not in self.fixed}
        categories = {at: axis.coordinates.tolist() for at, axis in axes.items() if axis.is_categorical}
        numbers = {
            at: axis.coordinates.tolist()
            for at, axis in axes.items()
            if not axis.is_categorical and 0 < axis.count <= _STEP_UP_TO_VALUES
        }
        if not categories and not numbers:
            return rows
        found, _ = discrete_step(self._inputs(), numbers, categories, torch.as_tensor(rows).clone())
        return np.asarray(found.numpy())

    def _inputs(self) -> OptimizeAcqfInputs:
        return OptimizeAcqfInputs(
            acq_function=self.acquisition,
            bounds=_bounds(self.space),
            q=1,
            num_restarts=_ASCENT_STARTS,
            raw_samples=1,  # not used: the starts are given, but a number is asked for
            options={"maxiter_continuous": _CONTINUOUS_ITERATIONS, "init_batch_limit": _at_once(self.acquisition)},
            inequality_constraints=None,
            equality_constraints=None,
            nonlinear_inequality_constraints=None,
            fixed_features=dict(self.fixed),
            post_processing_func=None,
            batch_initial_conditions=None,
            return_best_only=False,
            retry_on_optimization_warning=False,  # a line search that ends early has still not become worse
            gen_candidates=gen_candidates_scipy,
            sequential=False,
        )


def _bounds(space: Space) -> Tensor:
    upper = [axis.count - 1.0 if axis.is_categorical else 1.0 for axis in space.axes]
    return torch.tensor([[0.0] * len(upper), upper], dtype=torch.double)
