"""A check at start-up that all five packages are imported from the same installation.

Their names are short and common: a folder called `data` or `models` beside a script would be imported instead of ours.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from .errors import SetupError

PACKAGES = ("hpo", "models", "data", "workers", "api")


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
