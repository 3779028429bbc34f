"""`task: {recipe: NAME}`: the settings of a recipe, joined with what the person wrote.

What a person wrote wins: a setting of `task.base`, and a parameter of the space. The joined spec names no recipe, so
that a later release, with another recipe of the same name, changes no study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import NotFoundError, SpecError, SpecIssue
from ..flat import flatten
from .library import Recipe, recipe

PATH = "task.recipe"


def resolve_recipe(raw: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return a decoded spec in which the settings of the recipe that its task names have taken its place.

    Raises:
        SpecError: there is no such recipe, or `task.base` cannot be written flat.
    """
    task, space = raw.get("task"), raw.get("space", {})
    if not isinstance(task, Mapping) or "recipe" not in task:
        return raw
    found = _look_up(task["recipe"])
    written = {key: value for key, value in task.items() if key != "recipe"}
    base = written.get("base", {})
    if isinstance(base, Mapping):
        own = _flat(base)
        searched = set(_always_searched(space)) if isinstance(space, Mapping) else set()
        settings = {key: value for key, value in _suitable(found, own, searched).items() if key not in own}
        written = {"epochs": found.epochs, **written, "base": {**settings, **own}}
    return {**raw, "task": written}


def _always_searched(space: Mapping[Any, Any]) -> Iterator[Any]:
    """Yield the parameters that every trial has: without one that a trial lacks, the recipe's setting counts."""
    for name, parameter in space.items():
        if name == "model" or not (isinstance(parameter, Mapping) and parameter.get("when")):
            yield name


def _flat(base: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return flatten(base)
    except ValueError as error:
        raise SpecError([SpecIssue(path="task.base", message=str(error))]) from error


def _look_up(name: object) -> Recipe:
    try:
        return recipe(str(name))
    except NotFoundError as error:
        raise SpecError([SpecIssue(path=PATH, message=str(error))]) from error


def _suitable(found: Recipe, own: Mapping[str, Any], searched: set[str]) -> dict[str, Any]:
    """Return the settings that are not searched; without the options of the recipe's model where another one trains."""
    same = own.get("model", found.base["model"]) == found.base["model"] and "model" not in searched
    return {
        key: value
        for key, value in found.base.items()
        if key not in searched and (same or not key.startswith("model."))
    }
