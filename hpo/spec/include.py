"""`space: {include: MODEL}`: ranges that the model zoo recommends, joined with what the person wrote.

What a person wrote wins: a parameter of the space replaces an included one of its name, and a setting that
`task.base` fixes is not searched. With several models, `model` is searched among them; a parameter that only some
of them have exists for those, and one that they search differently keeps what their ranges have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from ..errors import NotFoundError, SpecError, SpecIssue
from .flat import flatten
from .tasks import KINDS, kind_of
from .tasks.task import TaskConfig

PATH = "space.include"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """What a name stands for: ranges, and the settings of the training run that they assume."""

    space: Mapping[str, Mapping[str, Any]]
    base: Mapping[str, Any]


Fragments = Callable[[str], Fragment]
"""Returns the fragment of a model; raises NotFoundError where there is none."""


def resolve_include(raw: Mapping[Any, Any], fragments: Fragments | None) -> Mapping[Any, Any]:
    """Return a decoded spec in which the parameters that `space.include` stands for have taken its place.

    Raises:
        SpecError: a name is not known, the models cannot be searched together as they are, or `task.base` cannot be
            written flat.
    """
    space = raw.get("space")
    if not isinstance(space, Mapping) or "include" not in space:
        return raw
    if fragments is None:
        raise _wrong("models cannot be looked up here; write the parameters out")
    task = raw.get("task")
    kind = KINDS.get(kind_of(task))
    found = _of_kind(_look_up(_names(space["include"]), fragments), kind)
    own = {key: value for key, value in space.items() if key != "include"}
    base = task.get("base", {}) if isinstance(task, Mapping) else {}
    try:
        fixed = flatten(base) if isinstance(base, Mapping) else {}
    except ValueError as error:
        raise SpecError([SpecIssue(path="task.base", message=str(error))]) from error
    joined = {**_model_choice(list(found), own, fixed), **_parameters(found, own, fixed), **own}
    resolved = {**raw, "space": joined}
    if isinstance(task, Mapping) and isinstance(base, Mapping) and kind is not None:
        resolved["task"] = {**task, "base": {**fixed, **_settings(found, own, fixed, kind.defaults())}}
    return resolved


def _names(value: object) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _wrong(f"must be the name of a model, or a list of names, but it is {value!r}")
    return list(dict.fromkeys(names))


def _look_up(names: list[str], fragments: Fragments) -> dict[str, Fragment]:
    found, issues = {}, []
    for place, name in enumerate(names):
        try:
            found[name] = fragments(name)
        except NotFoundError as error:
            path = f"{PATH}[{place}]" if len(names) > 1 else PATH
            issues.append(SpecIssue(path=path, message=str(error)))
    if issues:
        raise SpecError(issues)
    return found


def _of_kind(found: dict[str, Fragment], kind: type[TaskConfig] | None) -> dict[str, Fragment]:
    """Return the fragments without the ranges that say nothing in tasks of this kind."""
    if kind is None:
        return found
    return {
        name: replace(one, space={key: value for key, value in one.space.items() if key not in kind.meaningless})
        for name, one in found.items()
    }


def _model_choice(names: list[str], own: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameter `model`, unless there is one or nothing to choose from."""
    if "model" in own:
        choices = _choices(own["model"])
        absent = [name for name in names if name not in choices]
        if choices and absent:
            raise _wrong(f"{absent[0]} is not among space.model.choices; add it there, or do not include it")
    elif "model" in fixed and names != [fixed["model"]]:
        raise _wrong(
            f"these are the ranges of {', '.join(names)}, but task.base.model is {fixed['model']}; "
            "leave one of the two out"
        )
    elif len(names) > 1:
        return {"model": {"type": "categorical", "choices": names}}
    return {}


def _choices(parameter: object) -> list[Any]:
    choices = parameter.get("choices") if isinstance(parameter, Mapping) else None
    return choices if isinstance(choices, list) else []


def _settings(
    found: Mapping[str, Fragment], own: Mapping[str, Any], fixed: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the ranges assume and the person has not said; a model that names no value assumes the default.

    Raises:
        SpecError: two models assume different things.
    """
    settings: dict[str, Any] = {} if len(found) > 1 or "model" in own else {"model": next(iter(found))}
    for key in dict.fromkeys(key for fragment in found.values() for key in fragment.base):
        if key in own or key in fixed:
            continue
        wanted = {name: fragment.base.get(key, defaults.get(key)) for name, fragment in found.items()}
        settings[key] = next(iter(wanted.values()))
        if any(value != settings[key] for value in wanted.values()):
            assumed = ", ".join(f"{name} assumes {value}" for name, value in wanted.items())
            raise _wrong(
                f"the ranges are for different settings of {key} ({assumed}); set task.base.{key} to one of them"
            )
    return settings


def _parameters(found: Mapping[str, Fragment], own: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ranges of all models, joined; one that not every model has exists for those that have it."""
    models = _choices(own["model"]) if "model" in own else list(found)
    choices = {key: [value] for key, value in fixed.items()} | {key: _choices(value) for key, value in own.items()}
    joined = {}
    for key in dict.fromkeys(key for fragment in found.values() for key in fragment.space):
        if key in own or key in fixed:
            continue
        owners = {name: fragment.space[key] for name, fragment in found.items() if key in fragment.space}
        parameter = _common(key, owners)
        # A range that was narrowed, or a value that is fixed, narrows what depends on it.
        when = {parent: _both(values, choices.get(parent, [])) for parent, values in parameter.pop("when", {}).items()}
        if not all(when.values()):
            continue
        when = {parent: values for parent, values in when.items() if parent not in fixed}
        # A setting of the training run suits models that are not included; an option of a model does not.
        if set(owners) != set(models if key.startswith("model.") else found):
            when = {"model": list(owners), **when}
        joined[key] = {**parameter, "when": when} if when else parameter
        choices[key] = _choices(parameter)
    return joined


def _common(key: str, owners: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values of `key` that are in the ranges of all its owners."""
    ends = ("low", "high", "choices")
    first, *others = owners.values()
    common = dict(first)
    alike = all(_without(first, ends) == _without(other, ends) for other in others)
    if alike and "choices" in first:
        common["choices"] = reduce(_both, (owner["choices"] for owner in owners.values()))
    elif alike:
        common |= {"low": max(o["low"] for o in owners.values()), "high": min(o["high"] for o in owners.values())}
    if not alike or common.get("choices") == [] or common.get("low", 0) > common.get("high", 0):
        raise _wrong(f"the ranges of {key} for {', '.join(owners)} have nothing in common; give space.{key} yourself")
    return common


def _both(values: list[Any], others: list[Any]) -> list[Any]:
    return [value for value in values if value in others]


def _without(parameter: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in parameter.items() if key not in keys}


def _wrong(message: str) -> SpecError:
    return SpecError([SpecIssue(path=PATH, message=message)])
