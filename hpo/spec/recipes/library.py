"""The recipes that are installed: YAML files beside this module, named by the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any, Final

import yaml

from ...errors import NotFoundError
from ..flat import flatten

_SUFFIX: Final = ".yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of a published training."""

    name: str
    about: str
    """What it trains, and what of the original is not in the settings."""
    source: str
    epochs: int
    base: Mapping[str, Any]
    """Settings by their flat names, as in the `base` of a task."""
    text: str
    """The file."""


@cache
def list_recipes() -> tuple[str, ...]:
    """Return the names of all recipes, sorted."""
    files = (entry.name for entry in resources.files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


@cache
def recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        NotFoundError: there is none of this name; the message suggests the nearest.
    """
    if name not in list_recipes():
        near = get_close_matches(name, list_recipes(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(list_recipes())
        raise NotFoundError(f"there is no recipe {name!r}; {hint}")
    text = resources.files(__package__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return Recipe(
        name=name,
        about=" ".join(content["about"].split()),
        source=" ".join(content["source"].split()),
        epochs=content["epochs"],
        base=flatten(content["base"]),
        text=text,
    )
