"""The suite bbob-mixint of COCO (Tušar et al., 2019): functions of eight integers and two reals, optima known."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpo.spec import AnyParameter, FloatParameter, IntParameter
from hpo.trial import Params

from .problem import LOSS, Problem, ProblemMissing

DIMENSIONS: Final = 10


def mixint(name: str, function: int) -> Problem:
    """Return function `function` (1 to 24), first instance, with ten variables."""
    problem, optimum = _coco(function)
    space = _space(problem)

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        return np.array([[problem([float(params[key]) for key in space])] for params in many])

    return Problem(name=name, space=space, objectives=(LOSS,), truth=truth, optimum=(optimum,))


def _space(problem: Any) -> dict[str, AnyParameter]:
    space: dict[str, AnyParameter] = {}
    bounds = zip(problem.lower_bounds, problem.upper_bounds, strict=True)
    for place, (low, high) in enumerate(bounds):
        if place < problem.number_of_integer_variables:
            space[f"model.x{place}"] = IntParameter(type="int", low=int(low), high=int(high))
        else:
            space[f"model.x{place}"] = FloatParameter(type="float", low=float(low), high=float(high))
    return space


@cache
def _coco(function: int) -> tuple[Any, float]:
    if importlib.util.find_spec("cocoex") is None:
        raise ProblemMissing("coco-experiment is not installed; pip install coco-experiment")
    import cocoex

    suite = cocoex.Suite("bbob-mixint", "", f"dimensions:{DIMENSIONS} function_indices:{function} instance_indices:1")
    problem = suite.get_problem(0)
    # COCO only gives its optimum by writing it into the current folder.
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        problem._best_parameter("print")
        best = np.loadtxt(Path(folder) / os.listdir(folder)[0])[:DIMENSIONS]
    _LIVE_SUITES.append(suite)
    return problem, float(problem(best))


_LIVE_SUITES: Final[list[Any]] = []
"""Suites that must stay alive, because a problem is freed with its suite."""
