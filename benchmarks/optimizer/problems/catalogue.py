"""The problems by name, and those of each protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from hpo.trial import FailureKind

from . import analytic, fronts, tabular, yahpo
from .demo import NOISES, demo_problems, failing_name, noisy_name
from .mixint import mixint
from .problem import Problem, ProblemError
from .scramble import scrambled
from .trained import TABLES_FOLDER
from .trained import TRAINED as TABLE_NAMES
from .trained_service import PREFIX, trained

SHARED_DATA: Final = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "yahpo"
"""The default folder of the surrogates, next to the checkout; --yahpo names another."""

LCBENCH: Final = tuple(f"lcbench_{task}" for task in yahpo.LCBENCH_TASKS)
MIXINT: Final = tuple(f"mixint_f{function}" for function in range(1, 9))
TABLES: Final = ("protein", "naval", "vehicle", "phoneme", "car", "credit_g", "nasbench201")
SINGLE: Final = ("hartmann6", "levy5", *TABLES, *LCBENCH, "xgboost", *MIXINT, "conditional")
"""The problems of the sequential and the asynchronous protocol."""
FRONTS: Final = ("branin_currin", "dtlz2", "network_size", "protein_size", "nasbench201_latency")
"""The problems with two objectives."""
TRAINED: Final = tuple(f"{PREFIX}{name}" for name in TABLE_NAMES)
"""The tables of real trainings."""
DEMOS: Final = tuple(noisy_name(noise) for noise in NOISES)
"""The closed form of the demo, by noise."""
FAILING: Final = tuple(failing_name(kind) for kind in FailureKind)
"""The closed form of the demo with a third of the space that fails, by kind of failure."""

_FACTORIES: Final[Mapping[str, Callable[[], Problem]]] = {
    "hartmann6": analytic.hartmann6,
    "levy5": analytic.levy5,
    "conditional": analytic.conditional,
    "mixed10": analytic.mixed10,
    "memory": analytic.memory_limited,
    "protein": partial(tabular.hpolib, "protein", "protein_structure"),
    "naval": partial(tabular.hpolib, "naval", "naval_propulsion"),
    **{name: partial(tabular.hpobench, name, name) for name in ("vehicle", "phoneme", "car", "credit_g")},
    "nasbench201": partial(tabular.nasbench201, "nasbench201", "cifar10"),
    **{name: partial(mixint, name, function) for function, name in enumerate(MIXINT, start=1)},
    "branin_currin": fronts.branin_currin,
    "dtlz2": fronts.dtlz2,
    "network_size": fronts.network_size,
    "protein_size": partial(tabular.hpolib_size, "protein_size", "protein_structure"),
    "nasbench201_latency": partial(tabular.nasbench201_latency, "nasbench201_latency", "cifar10"),
    **demo_problems(),
}
_SURROGATES: Final[Mapping[str, Callable[[Path], Problem]]] = {
    **{f"lcbench_{task}": partial(yahpo.lcbench, f"lcbench_{task}", task) for task in yahpo.LCBENCH_TASKS},
    "xgboost": partial(yahpo.xgboost, "xgboost", yahpo.XGBOOST_TASK),
}
NAMES: Final = (*_FACTORIES, *_SURROGATES, *TRAINED)


def load_problem(
    name: str, *, data: Path = SHARED_DATA, tables: Path = TABLES_FOLDER, scramble: int | None = None
) -> Problem:
    """Return the problem `name`, relabelled and reflected by the seed `scramble` if it is given.

    `data` is the folder of the surrogates, `tables` that of the tables of trainings.

    Raises:
        ProblemMissing: its data or package is missing.
        ProblemError: no problem has this name.
    """
    if name in _FACTORIES:
        problem = _FACTORIES[name]()
    elif name in _SURROGATES:
        problem = _SURROGATES[name](data)
    elif name in TRAINED:
        problem = trained(name, tables)
    else:
        raise ProblemError(f"there is no problem {name!r}; known: {', '.join(NAMES)}")
    return problem if scramble is None else scrambled(problem, scramble)
