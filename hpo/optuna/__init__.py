"""Scripts written for Optuna on a study of ours: `import hpo.optuna as optuna`.

An objective keeps its `trial.suggest_*`, `trial.report`, `trial.should_prune` and `raise optuna.TrialPruned()`, and
`create_study` says what it may need besides. Trials are those of the service: leased, stopped by its rules, proposed by
its optimizer, seen on its pages. What is missing raises an error that says what to write in its place.
"""

from typing import Any, Final

from .create import create_study, load_study
from .study import Study
from .trial import Trial, TrialPruned
from .trials import FrozenTrial, TrialState

__all__ = ["FrozenTrial", "Study", "Trial", "TrialPruned", "TrialState", "create_study", "load_study"]

_INSTEAD: Final = {
    "samplers": "leave the sampler out, or write create_study(sampler={'name': 'tpe'})",
    "pruners": "leave the pruner out, or write create_study(steps=..., pruner={'name': 'median'})",
    "storages": "leave the storage out, or write create_study(storage='http://host:8000')",
    "visualization": "the pages of the study show its figures; `hpo export NAME --to-optuna URL` takes it to Optuna",
    "importance": "the pages of the study show it; `hpo export NAME --to-optuna URL` takes the study to Optuna",
    "exceptions": "write optuna.TrialPruned",
    "logging": "leave it out: nothing is logged but warnings, with Python's logging",
}


def __getattr__(name: str) -> Any:
    """Say what to write in place of a part of Optuna that is not here."""
    instead = _INSTEAD.get(name, "docs/from-optuna.md lists what is here")
    raise AttributeError(f"hpo.optuna has no {name!r}: {instead}")
