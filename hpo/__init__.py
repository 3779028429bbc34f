"""Studies, search spaces, the store, the optimizer, early stopping, export and the `hpo` command.

    import hpo

    def train(trial: hpo.Trial) -> float: ...

    hpo.tune(train, space={...}, objective="accuracy", budget={"trials": 50})

Importing it costs nothing: each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .functions.trial import Trial as Trial
    from .functions.trial import TrialInterrupted as TrialInterrupted
    from .functions.tune import tune as tune

_PLACES: Final = {
    "Trial": "functions.trial",
    "TrialInterrupted": "functions.trial",
    "tune": "functions.tune",
}
__all__ = ["Trial", "TrialInterrupted", "tune"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
