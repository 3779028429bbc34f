"""Read a study spec from YAML, JSON or plain objects, with errors that name the field and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import SpecError, SpecIssue
from .dataset import DatasetConfig
from .include import Fragments, resolve_include
from .optimizer import OptimizerConfig
from .parameters import CategoricalParameter, FloatParameter, IntParameter, OrdinalParameter, Prior
from .study import (
    AshaStopping,
    BudgetConfig,
    HyperbandStopping,
    MedianStopping,
    NoStopping,
    Objective,
    PatientStopping,
    PercentileStopping,
    RetryConfig,
    StudySpec,
    TaskConfig,
    ThresholdStopping,
)

_TAGS: dict[str, type[BaseModel]] = {
    "float": FloatParameter,
    "int": IntParameter,
    "categorical": CategoricalParameter,
    "ordinal": OrdinalParameter,
    "none": NoStopping,
    "median": MedianStopping,
    "percentile": PercentileStopping,
    "asha": AshaStopping,
    "hyperband": HyperbandStopping,
    "threshold": ThresholdStopping,
    "patient": PatientStopping,
}
_SECTIONS: dict[str, type[BaseModel]] = {
    "objectives": Objective,
    "task": TaskConfig,
    "dataset": DatasetConfig,
    "optimizer": OptimizerConfig,
    "budget": BudgetConfig,
    "retry": RetryConfig,
    "prior": Prior,
}


def parse_spec(raw: object, fragments: Fragments | None = None) -> StudySpec:
    """Check a decoded spec; what its space includes is looked up in `fragments` and becomes part of it.

    Raises:
        SpecError: with one issue per offending field.
    """
    if not isinstance(raw, Mapping):
        raise SpecError([SpecIssue(path="", message="a study spec is a mapping of fields, such as name: my-study")])
    try:
        issues = list(_unstorable(raw))
    except RecursionError as error:
        raise SpecError([SpecIssue(path="", message="is nested too deeply, or contains itself")]) from error
    if issues:
        raise SpecError(issues)
    try:
        return StudySpec.model_validate(resolve_include(raw, fragments))
    except ValidationError as error:
        raise SpecError(issues_of(error)) from error


def load_spec(path: Path, fragments: Fragments | None = None) -> StudySpec:
    """Read a spec file; JSON is YAML as far as this is concerned. See `parse_spec` for `fragments`.

    Raises:
        SpecError: the file is missing, is not YAML, or does not describe a valid study.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError([SpecIssue(path=str(path), message=f"cannot be read ({error.strerror})")]) from error
    except UnicodeDecodeError as error:
        raise SpecError([SpecIssue(path=str(path), message=f"is not valid YAML or JSON: {error}")]) from error
    return parse_spec(decode(text, source=str(path)), fragments)


def decode(text: str, *, source: str = "", form: Literal["yaml", "json"] = "yaml", aliases: bool = True) -> object:
    """Turn YAML (which includes most JSON) or strict JSON into plain objects.

    `aliases=False` refuses YAML references, with which a few lines from a stranger can stand for gigabytes.

    Raises:
        SpecError: the text cannot be read; its path is `source`.
    """
    loader = _SpecLoader if aliases else _PlainLoader
    try:
        return json.loads(text) if form == "json" else yaml.load(text, Loader=loader)  # noqa: S506 - SafeLoaders
    except RecursionError as error:
        raise SpecError([SpecIssue(path=source, message="is nested too deeply")]) from error
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if form == "json" else "YAML or JSON"
        reason = " ".join(str(error).split())
        raise SpecError([SpecIssue(path=source, message=f"is not valid {kind}: {reason}")]) from error


def dump_spec(spec: StudySpec) -> dict[str, Any]:
    """Give the spec as JSON-ready data; `parse_spec` of it is an equal spec."""
    return spec.model_dump(mode="json")


def issues_of(error: ValidationError) -> list[SpecIssue]:
    """Translate pydantic's findings into paths and sentences that a person who wrote the file knows."""
    return [SpecIssue(path=_path(found), message=_sentence(found)) for found in error.errors()]


class _SpecLoader(yaml.SafeLoader):
    """YAML 1.2 floats: 1e-4 is a number, which YAML 1.1 takes for text."""


_SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class _PlainLoader(_SpecLoader):
    """Without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted here")
        return super().compose_node(parent, index)


def _unstorable(raw: object, path: str = "") -> Iterator[SpecIssue]:
    """Find text that no JSON column of Postgres takes: NUL and halves of surrogate pairs."""
    if isinstance(raw, str):
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in raw):
            yield SpecIssue(path=path, message="contains a character that cannot be stored (NUL or a lone surrogate)")
    elif isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _unstorable(key, path)
            yield from _unstorable(value, f"{path}.{key}" if path else str(key))
    elif isinstance(raw, Sequence):
        for index, value in enumerate(raw):
            yield from _unstorable(value, f"{path}[{index}]")


def _location(found: ErrorDetails) -> list[str | int]:
    """The path without the tags that pydantic inserts for the kind of a parameter or rule."""
    location = list(found["loc"])
    if len(location) >= 3 and location[0] == "space" and location[2] in _TAGS:
        del location[2]
    if len(location) >= 2 and location[0] == "early_stopping" and location[1] in _TAGS:
        del location[1]
    return [part for part in location if not (isinstance(part, str) and _is_type_tag(part))]


def _is_type_tag(part: str) -> bool:
    return part.startswith(("constrained-", "function-", "literal[", "nullable[")) or part in (
        "int",
        "bool",
        "str",
    )


def _path(found: ErrorDetails) -> str:
    path = ""
    for part in _location(found):
        path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else part)
    return path


def _sentence(found: ErrorDetails) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_field(found)
    if kind == "missing":
        return "this field is required"
    if kind == "union_tag_not_found":
        return f"give {context['discriminator']}; one of: " + ", ".join(_tags_at(found))
    if kind == "union_tag_invalid":
        return f"{context['tag']!r} is not known here; use one of: " + str(context["expected_tags"])
    if kind == "string_pattern_mismatch":
        return f"{found['input']!r} is not a name; use letters, digits, '.', '_' and '-', at most 100"
    message = str(found["msg"]).removeprefix("Value error, ")
    if message.startswith("Input should"):
        message = f"should {message.removeprefix('Input should ')}, but it is {found['input']!r}"
    return message


def _tags_at(found: ErrorDetails) -> list[str]:
    kinds = ("float", "int", "categorical", "ordinal")
    return list(kinds) if found["loc"][0] == "space" else [tag for tag in _TAGS if tag not in kinds]


def _unknown_field(found: ErrorDetails) -> str:
    location = [part for part in found["loc"] if isinstance(part, str)]
    name = location[-1]
    known = list(_model_at(location[:-1]).model_fields)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(known)
    return f"there is no field {name!r} here; {hint}"


def _model_at(location: list[str]) -> type[BaseModel]:
    for part in reversed(location):
        if part in _TAGS:
            return _TAGS[part]
        if part in _SECTIONS:
            return _SECTIONS[part]
    return StudySpec
