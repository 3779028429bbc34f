"""The reference of regret: the best and the median value of every problem, stored in `references.json`.

If the optimum is known neither in closed form nor from a whole table, it is the best of a large random sample, improved
by local search. The median is that of the random sample. With two objectives the corner and the hypervolume are stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpo.optimizer.cube import decode
from hpo.spec import StudySpec

from .hypervolume import hypervolume, pareto_front
from .problems import Problem
from .study import spec_of

PATH: Final = Path(__file__).with_name("references.json")
SAMPLES: Final = 50_000
_SEARCH_ROUNDS: Final = 60
_FIRST_STEP_SD: Final = 0.15
"""Standard deviation of the first steps of the local search, in the unit cube."""

Losses = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The ends of the regret scale, as losses; with two objectives the corner and the hypervolume."""

    sign: float = 1.0
    """1 where the first objective is minimized, -1 where it is maximized."""
    optimum: float | None = None
    median: float | None = None
    corner: tuple[float, ...] | None = None
    hypervolume: float | None = None

    def regret(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the regret of values of the objective: 0 at the optimum (never less), 1 at the median random one."""
        if self.optimum is None or self.median is None:
            raise ValueError("a problem of several objectives has no regret")
        return np.maximum(self.sign * np.asarray(values, dtype=np.float64) - self.optimum, 0.0) / (
            self.median - self.optimum
        )


@cache
def reference_of(name: str, path: Path = PATH) -> Reference:
    """Return the stored reference of a problem.

    Raises:
        KeyError: it was never computed; `python -m benchmarks.optimizer reference` does it.
    """
    raw = json.loads(path.read_text())[name]
    return Reference(**{**raw, "corner": None if raw["corner"] is None else tuple(raw["corner"])})


def save_reference(name: str, reference: Reference, path: Path = PATH) -> None:
    """Store the reference of a problem, in place of an earlier one."""
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = asdict(reference)
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def compute_reference(problem: Problem, *, samples: int = SAMPLES, seed: int = 0) -> Reference:
    """Return the reference of a problem: what the problem states, and computed values for the rest."""
    if problem.optimum is not None and problem.median is not None and len(problem.objectives) == 1:
        sign = float(problem.signs[0])
        return Reference(sign=sign, optimum=problem.optimum[0] * sign, median=problem.median * sign)
    rng = np.random.default_rng(seed)
    spec = spec_of(problem, trials=1)
    points = rng.random((samples, len(problem.space)))
    losses = _losses(problem, spec)
    first = losses(points)
    if len(problem.objectives) > 1:
        return _front(problem, losses, points, first, rng)
    sign = float(problem.signs[0])
    usable = first[np.isfinite(first[:, 0]), 0]
    median = float(np.median(usable)) if problem.median is None else problem.median * sign
    if problem.optimum is not None:
        return Reference(sign=sign, optimum=problem.optimum[0] * sign, median=median)
    optimum = _descend(lambda many: losses(many)[:, 0], points, first[:, 0], rng)
    return Reference(sign=sign, optimum=optimum, median=median)


def _losses(problem: Problem, spec: StudySpec) -> Losses:
    """Return the function from points of the cube to losses; without enough memory they are infinite."""

    def losses(points: NDArray[np.float64]) -> NDArray[np.float64]:
        many = [decode(spec, [float(u) for u in point]) for point in points]
        found = problem.losses(problem.truth(many))
        found[[not problem.fits(params) for params in many]] = np.inf
        return found

    return losses


def _descend(
    losses: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    points: NDArray[np.float64],
    first: NDArray[np.float64],
    rng: np.random.Generator,
) -> float:
    """Return the best loss after improving the best points by shorter and shorter random steps in some coordinates."""
    chosen = np.argsort(first)[:40]
    best, value = points[chosen], first[chosen]
    for turn in range(_SEARCH_ROUNDS):
        width = _FIRST_STEP_SD * 0.92**turn
        tried = np.repeat(best, 25, axis=0)
        moved = rng.random(tried.shape) < 0.4
        tried = np.clip(tried + moved * width * rng.standard_normal(tried.shape), 0.0, 1.0 - 1e-12)
        jump = rng.random(tried.shape) < 0.02
        tried[jump] = rng.random(int(jump.sum()))
        found = losses(tried).reshape(len(best), -1)
        place = found.argmin(axis=1)
        better = found.min(axis=1) < value
        best = np.where(better[:, None], tried.reshape(len(best), -1, best.shape[1])[np.arange(len(best)), place], best)
        value = np.where(better, found.min(axis=1), value)
    return float(value.min())


def _front(
    problem: Problem, losses: Losses, points: NDArray[np.float64], first: NDArray[np.float64], rng: np.random.Generator
) -> Reference:
    corner = np.quantile(first, 0.9, axis=0) if problem.reference_point is None else np.array(problem.reference_point)
    if problem.hypervolume is not None:
        return Reference(corner=tuple(map(float, corner)), hypervolume=problem.hypervolume)
    kept = first
    for turn in range(_SEARCH_ROUNDS):
        front = pareto_front(kept, corner)
        places = [int(np.flatnonzero((kept == row).all(axis=1))[0]) for row in front]
        parents = points[rng.choice(places, 1000)]
        steps = _FIRST_STEP_SD * 0.95**turn * rng.standard_normal(parents.shape) * (rng.random(parents.shape) < 0.5)
        points = np.vstack([points[places], np.clip(parents + steps, 0.0, 1.0 - 1e-12)])
        kept = np.vstack([front, losses(points[len(places) :])])
    return Reference(corner=tuple(map(float, corner)), hypervolume=hypervolume(kept, corner))
