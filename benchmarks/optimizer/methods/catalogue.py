"""Every method by its name, its version, and how dear it is."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from .method import Method, Setting
from .ours import Ours
from .random_method import RandomMethod

OURS: Final = "ours"
STOPPING: Final[Mapping[str, Mapping[str, Any]]] = {
    "asha": {"name": "asha", "min_epochs": 1, "reduction": 3},
    "curves": {"name": "curves"},
}
"""The early-stopping sections of `ours+NAME`."""
PRUNERS: Final = ("asha", "hyperband", "median")
CHECKOUT: Final = Path(__file__).resolve().parents[3]
_PROPOSING: Final = ("hpo/optimizer", *(f":(exclude)hpo/optimizer/{name}.py" for name in ("process", "server")))
_STOPPING_CODE: Final = tuple(
    f"hpo/{name}.py" for name in ("early_stopping", "curve_model", "curve_stopping", "rungs", "standing")
)


def _optuna(setting: Setting, **options: Any) -> Method:
    from .optuna_method import OptunaMethod

    return OptunaMethod(setting, **options)


def _ax(setting: Setting) -> Method:
    from .ax_method import AxMethod

    return AxMethod(setting)


_FACTORIES: Final[Mapping[str, Callable[[Setting], Method]]] = {
    "random": RandomMethod,
    "nsga2": partial(_optuna, sampler="nsga2"),
    "tpe": partial(_optuna, sampler="tpe"),
    **{f"tpe+{pruner}": partial(_optuna, sampler="tpe", pruner=pruner) for pruner in PRUNERS},
    OURS: partial(Ours, optimizer="ax"),
    **{f"{OURS}+{name}": partial(Ours, optimizer="ax", stopping=rule) for name, rule in STOPPING.items()},
    "gp": partial(_optuna, sampler="gp"),
    "ax": _ax,
}
METHODS: Final = tuple(_FACTORIES)
"""All names, the cheap ones first."""


def make_method(name: str, setting: Setting) -> Method:
    """Make a method for one run."""
    return _FACTORIES[name](setting)


@cache
def version_of(name: str) -> str:
    """Say which code a row of `name` comes from: the commit of our optimizer, or the version of the peer's package."""
    base, _, rule = name.partition("+")
    if base == OURS:
        return _commit(*_PROPOSING, *(_STOPPING_CODE if rule else ()))
    if name == "random":
        return "1"
    package = "ax-platform" if name == "ax" else "optuna"
    return f"{package} {importlib.metadata.version(package)}"


def _commit(*paths: str) -> str:
    """Give the commit that last changed some files; with `+` where the files differ from it."""
    found = _git("log", "-1", "--format=%h", "--", *paths)
    return found + ("+" if _git("status", "--porcelain", "--", *paths) else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S607
    return done.stdout.strip() if done.returncode == 0 else "unknown"
