"""What pydantic finds wrong with a spec, in the words of the person who wrote it: a path and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import SpecIssue
from ..meanings import nearest
from .parameters import AnyParameter
from .study import EarlyStopping, StudySpec
from .tasks import DEFAULT_KIND, KINDS
from .tasks.task import TaskConfig
from .wording import complaint

Location = tuple[str | int, ...]


def _by_tag(union: Any, discriminator: str) -> dict[str, type[BaseModel]]:
    members: tuple[type[BaseModel], ...] = get_args(get_args(union)[0])
    return {get_args(member.model_fields[discriminator].annotation)[0]: member for member in members}


_KINDS: Final = _by_tag(AnyParameter, "type")
_RULES: Final = _by_tag(EarlyStopping, "name")
_VALUE_TYPES: Final = {"bool_type", "int_type", "float_type", "string_type"}


def issues_of(error: ValidationError) -> list[SpecIssue]:
    """Return what pydantic has found, translated; findings about the alternatives of one value become one."""
    groups: dict[tuple[Location, int | None], list[ErrorDetails]] = {}
    for place, found in enumerate(error.errors()):
        location = _location(found)
        is_alternative = isinstance(last := found["loc"][-1] if found["loc"] else 0, str) and _is_type_tag(last)
        groups.setdefault((location, None if is_alternative else place), []).append(found)
    return [SpecIssue(path=_path(location), message=_message(group)) for (location, _), group in groups.items()]


def path_of(found: ErrorDetails) -> str:
    """Return the path of the offending field, as the person wrote it."""
    return _path(_location(found))


def _location(found: ErrorDetails) -> Location:
    """Return the path without what pydantic inserts: the kind of a parameter, rule or task, the type of a value."""
    location = list(found["loc"])
    if location == ["task"] and found["type"] == "union_tag_invalid":
        return "task", "kind"
    if len(location) >= 2 and location[0] == "task" and location[1] in KINDS:
        del location[1]
    if len(location) >= 3 and location[0] == "space" and location[2] in _KINDS:
        del location[2]
    if len(location) >= 2 and location[0] == "early_stopping" and location[1] in _RULES:
        del location[1]
    if location and (location[-1] == "[key]" or (isinstance(location[-1], str) and _is_type_tag(location[-1]))):
        del location[-1]
    return tuple(part for part in location if not (isinstance(part, str) and part.startswith("function-")))


def _is_type_tag(part: str) -> bool:
    return part in ("int", "bool", "str", "float") or part.startswith(("constrained-", "literal[", "nullable["))


def _path(location: Location) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else part)
    return path


def _message(group: Sequence[ErrorDetails]) -> str:
    first = group[0]
    if len(group) == 1:
        return _sentence(first)
    if {found["type"] for found in group} == _VALUE_TYPES:
        return f"{first['input']!r} is not a value; give a number, a word, true or false"
    *others, last = [str(found["msg"]).removeprefix("Input should be ") for found in group]
    return f"must be {', '.join(others)} or {last}, but it is {first['input']!r}"


def _sentence(found: ErrorDetails) -> str:
    if found["type"] in _SENTENCES:
        return _SENTENCES[found["type"]](found, found.get("ctx", {}))
    return complaint(found)


def unknown_kind(found: ErrorDetails) -> str:
    """Return the sentence for a kind of task, parameter or rule that does not exist (`union_tag_invalid`)."""
    says, given = found.get("ctx", {}), found["input"]
    field = says["discriminator"].strip("'")
    fields = ("kind", "type") if field == "kind_of()" else (field,)
    named = next((given[one] for one in fields if one in given), None) if isinstance(given, Mapping) else says["tag"]
    return f"{named!r} is not known here; use one of: {says['expected_tags']}"


def _items(count: int) -> str:
    return f"{count} item{'s' if count != 1 else ''}"


def _no_mapping(found: ErrorDetails) -> str:
    given = found["input"]
    names = _names(found)
    is_section = names[:1] != ["space"] or names[-1] == "prior"
    model = _model_at(names) if is_section else None
    if not isinstance(given, str | int | float) or model is None or model is StudySpec:
        return f"must be a mapping of fields, but it is {given!r}"
    fields = model.model_fields
    likely = next((name for name, field in fields.items() if field.is_required()), next(iter(fields)))
    return f"must be a mapping, such as {{{likely}: {given}}}, but it is {given!r}"


def _tags_at(found: ErrorDetails) -> list[str]:
    return list(_KINDS if found["loc"][0] == "space" else _RULES)


def _unknown_field(found: ErrorDetails) -> str:
    *location, name = _names(found)
    model = _model_at(location)
    known = list(model.model_fields) if model is not None else []
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near is not None else "known: " + ", ".join(known)
    return f"there is no field {name!r} here; {hint}"


def _names(found: ErrorDetails) -> list[str]:
    return [part for part in found["loc"] if isinstance(part, str)]


def _model_at(names: Sequence[str]) -> type[BaseModel] | None:
    """Return the model of the section at a path of pydantic's, by following the fields from the whole spec.

    None where what stands there has no fields, such as a number.
    """
    found: tuple[type[BaseModel], ...] = (StudySpec,)
    is_key = False
    for name in names:
        tagged = tuple(model for model in found if name in _tags_of(model))
        if is_key:
            is_key = False
        elif tagged:
            found = tagged
        else:
            annotation = next((a for model in found if (a := _annotation(model, name)) is not None), None)
            found = () if annotation is None else tuple(_models_in(annotation))
            is_key = _is_mapping(annotation)
    return found[0] if found else None


def _annotation(model: type[BaseModel], name: str) -> Any:
    """Return what a field of this name holds; None if there is none."""
    field = model.model_fields.get(name)
    return None if field is None else field.annotation


def _tags_of(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the words by which pydantic tells a model from its alternatives, such as `asha`."""
    annotations = (_annotation(model, field) for field in ("type", "name", "kind"))
    return tuple(word for one in annotations if get_origin(one) is Literal for word in get_args(one))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field of this type may hold, also within lists, mappings and alternatives."""
    if annotation is TaskConfig:
        yield KINDS[DEFAULT_KIND]
        yield from (model for kind, model in KINDS.items() if kind != DEFAULT_KIND)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _models_in(inner)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, Mapping)


_SENTENCES: Final[Mapping[str, Callable[[ErrorDetails, Mapping[str, Any]], str]]] = {
    "extra_forbidden": lambda found, _: _unknown_field(found),
    "missing": lambda *_: "this field is required",
    "union_tag_not_found": lambda found, says: f"give {says['discriminator']}; one of: {', '.join(_tags_at(found))}",
    "union_tag_invalid": lambda found, _: unknown_kind(found),
    "string_pattern_mismatch": lambda found, _: (
        f"{found['input']!r} is not a name; use letters, digits, '.', '_' and '-', at most 100"
    ),
    "too_short": lambda _, says: f"must have at least {_items(says['min_length'])}, not {says['actual_length']}",
    "too_long": lambda _, says: f"must have at most {_items(says['max_length'])}, not {says['actual_length']}",
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), lambda found, _: _no_mapping(found)),
}
