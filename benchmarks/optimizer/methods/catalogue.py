"""The methods by name, and their versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from .method import Method, Setting
from .ours import Ours
from .random_method import RandomMethod

OURS: Final = "ours"
STOPPING: Final[Mapping[str, Mapping[str, Any]]] = {
    "asha": {"name": "asha", "reduction": 3},
    "median": {"name": "median"},
    "curves": {"name": "curves"},
    "curves+pause": {"name": "curves", "pause": True},
}
"""The early-stopping sections of `ours+NAME`."""
PRUNERS: Final = ("asha", "hyperband", "median")
SIMPLE_RULES: Final = ("asha", "median")
"""The rules that every optimizer is combined with where trials are stopped in a simulated service."""
BRIDGED: Final[Mapping[str, str]] = {"cqr": "syne-tune", "smac": "smac"}
"""The peers in an environment of their own, and their packages in `peers.txt`."""
CHECKOUT: Final = Path(__file__).resolve().parents[3]
_NOT_PROPOSING: Final = ("optuna_generator.py",)
_MODEL_FREE: Final = ("optimizer/sobol.py", "optimizer/cube.py", "stopping/halving.py", "stopping/simple_rules.py")
"""The files that determine a run without a model, under a simple rule."""


def _optuna(setting: Setting, **options: Any) -> Method:
    from .optuna_method import OptunaMethod

    return OptunaMethod(setting, **options)


def _bridged(setting: Setting, **options: Any) -> Method:
    from .bridged import Bridged

    return Bridged(setting, **options)


def _ax(setting: Setting) -> Method:
    from .ax_method import AxMethod

    return AxMethod(setting)


_FACTORIES: Final[Mapping[str, Callable[[Setting], Method]]] = {
    "random": RandomMethod,
    **{f"random+{rule}": partial(Ours, optimizer="random", stopping=STOPPING[rule]) for rule in SIMPLE_RULES},
    "sobol": partial(Ours, optimizer="sobol"),
    **{f"sobol+{rule}": partial(Ours, optimizer="sobol", stopping=STOPPING[rule]) for rule in SIMPLE_RULES},
    "nsga2": partial(_optuna, sampler="nsga2"),
    "tpe": partial(_optuna, sampler="tpe"),
    **{f"tpe+{pruner}": partial(_optuna, sampler="tpe", pruner=pruner) for pruner in PRUNERS},
    "cqr": partial(_bridged, peer="cqr"),
    "smac": partial(_bridged, peer="smac"),
    OURS: partial(Ours, optimizer="ax"),
    **{f"{OURS}+{name}": partial(Ours, optimizer="ax", stopping=rule) for name, rule in STOPPING.items()},
    "gp": partial(_optuna, sampler="gp"),
    **{f"gp+{rule}": partial(_optuna, sampler="gp", pruner=rule) for rule in SIMPLE_RULES},
    "ax": _ax,
}
METHODS: Final = tuple(_FACTORIES)
"""All names, the cheap methods first."""


def make_method(name: str, setting: Setting) -> Method:
    """Return a new method for one run."""
    return _FACTORIES[name](setting)


@cache
def version_of(name: str) -> str:
    """Return the version of the code behind `name`: a digest of our optimizer's files, or a package's version."""
    base, _, rule = name.partition("+")
    if base == OURS:
        return _digest(_code(stopping=bool(rule)))
    if name == "random":
        return "1"
    if base in ("random", "sobol"):
        return _digest([CHECKOUT / "hpo" / file for file in _MODEL_FREE])
    if name in BRIDGED:
        return _pinned(BRIDGED[name])
    package = "ax-platform" if name == "ax" else "optuna"
    return f"{package} {importlib.metadata.version(package)}"


@cache
def commit() -> str:
    """Return the commit of the checkout, with `+` for uncommitted changes, so that the code of a row can be found."""
    found = _git("rev-parse", "--short", "HEAD")
    return found + ("+" if _git("status", "--porcelain", "--", "hpo") else "")


def _code(*, stopping: bool) -> list[Path]:
    """Return the files that determine what our optimizer proposes and, with `stopping`, which trials it stops."""
    package = CHECKOUT / "hpo"
    files = [path for path in (package / "optimizer").rglob("*.py") if path.name not in _NOT_PROPOSING]
    deciding = [*(package / "stopping").glob("*.py"), package / "results" / "ranking.py"]
    return files + (deciding if stopping else [])


def _digest(files: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(f"{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:8]


def _pinned(package: str) -> str:
    """Return a package and its version in `peers.txt`."""
    lines = (CHECKOUT / "benchmarks" / "optimizer" / "peers.txt").read_text().splitlines()
    return next(line.replace("==", " ") for line in lines if line.startswith(f"{package}=="))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S607 - git is wherever the machine has it
    return done.stdout.strip() if done.returncode == 0 else "unknown"
