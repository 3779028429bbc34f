"""The addresses of the pages for people."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

HOME: Final = "/"
WORKERS: Final = "/workers"
NEW: Final = "/new"
DATA_SETS: Final = "/data-sets"
_TREES: Final = ("/studies", "/live", WORKERS, NEW, DATA_SETS)


def is_page(path: str) -> bool:
    """Return whether a path belongs to the pages, whose forms may change something for the person who is logged in."""
    return path == HOME or any(path == tree or path.startswith(tree + "/") for tree in _TREES)


def of_study(name: str) -> str:
    """Return the address of the page of a study."""
    return f"/studies/{quote(name, safe='')}"


def of_trial(study: str, number: int) -> str:
    """Return the address of the page of a trial."""
    return f"{of_study(study)}/trials/{number}"
