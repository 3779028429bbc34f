"""A check at start-up that all five packages are imported from the same installation, and starting our own processes.

Their names are short and common: a folder called `data` or `models` beside a script would be imported instead of ours.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from .errors import SetupError

PACKAGES = ("hpo", "models", "data", "workers", "api")
SAFE_PATH: Final = {"PYTHONSAFEPATH": "1"}
"""Part of the environment of our processes: what they start does not import from the current folder either."""
SECRET_VARIABLES: Final = frozenset({"HPO_SECRET", "HPO_TOKEN", "DATABASE_URL"})
"""Environment variables that hold secrets."""


def check_installation() -> None:
    """Check that all five packages are imported from one folder.

    Raises:
        SetupError: a package comes from another folder; the message names both.
    """
    ours = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        found = find_spec(name)
        place = None if found is None or found.origin is None else Path(found.origin).resolve().parents[1]
        if place == ours:
            continue
        where = "cannot be found" if place is None else f"is imported from {place}"
        raise SetupError(
            f"the package {name!r} {where}, but video-hpo is installed in {ours}: run from another folder, "
            f"or remove the folder that shadows it from PYTHONPATH"
        )


def python_command(code: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs `code` and imports nothing from the current folder.

    The folder may be anybody's: a package `models` or `data` in it, or a `sitecustomize.py`, would run with the
    secrets of the process. Its environment is `child_environment`, with what else it needs.
    """
    return [sys.executable, "-P", "-c", code, *arguments]


def child_environment() -> dict[str, str]:
    """Return the environment for a process of ours: without secrets, which it is given only where it needs them."""
    kept = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    return {**kept, **SAFE_PATH}
