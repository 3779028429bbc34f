"""The problems and their catalogue."""

from .catalogue import DEMOS, FAILING, FRONTS, LCBENCH, NAMES, SHARED_DATA, SINGLE, TRAINED, load_problem
from .problem import Problem, ProblemError, ProblemMissing, Values
from .trained import TABLES_FOLDER

__all__ = [
    "DEMOS",
    "FAILING",
    "FRONTS",
    "LCBENCH",
    "NAMES",
    "SHARED_DATA",
    "SINGLE",
    "TABLES_FOLDER",
    "TRAINED",
    "Problem",
    "ProblemError",
    "ProblemMissing",
    "Values",
    "load_problem",
]
