"""A benchmark problem as a study spec, the start that all methods share, and the random numbers of a run."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from hpo.optimizer.cube import decode
from hpo.spec import StudySpec, parse_spec
from hpo.trial import ParamValue

from .problems import Problem

START: Final = 5
"""Number of configurations that every method gets first, the same for all methods of a seed."""


def spec_of(problem: Problem, *, trials: int, seed: int = 0, **fields: Any) -> StudySpec:
    """Return a study spec for `problem`, as a user would write it; `fields` replace its fields."""
    return parse_spec(
        {
            "name": f"benchmark-{problem.name}",
            "objectives": [objective.model_dump() for objective in problem.objectives],
            "task": {"dataset": {"root": "/none"}, "epochs": problem.epochs},
            "space": {key: parameter.model_dump() for key, parameter in problem.space.items()},
            "optimizer": {"seed": seed},
            "budget": {"trials": trials},
            **fields,
        }
    )


def start_of(problem: Problem, seed: int, count: int = START) -> list[dict[str, ParamValue]]:
    """Return the first configurations of a seed, drawn uniformly from the space and all different."""
    rng = generator(problem, seed, "start")
    spec = spec_of(problem, trials=1)
    found: list[dict[str, ParamValue]] = []
    while len(found) < count:
        params = decode(spec, [float(u) for u in rng.random(len(problem.space))])
        if params not in found:
            found.append(params)
    return found


def generator(problem: Problem, seed: int, purpose: str, place: int = 0) -> np.random.Generator:
    """Return the random generator for one purpose; that of evaluation `place` is the same for every method."""
    return np.random.default_rng([seed, zlib.crc32(problem.name.encode()), zlib.crc32(purpose.encode()), place])


def metrics_of(problem: Problem, values: tuple[float, ...]) -> Mapping[str, float]:
    """Return the values by the metrics of the objectives."""
    return {objective.metric: value for objective, value in zip(problem.objectives, values, strict=True)}
