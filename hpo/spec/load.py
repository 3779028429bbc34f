"""Read a study spec from YAML, JSON or plain objects, with errors that name the field and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import ValidationError

from ..errors import SpecError, SpecIssue
from .contradictions import contradictions
from .include import Fragments, resolve_include
from .issues import issues_of
from .recipes import resolve_recipe
from .study import StudySpec

_MERGE: Final = "tag:yaml.org,2002:merge"
_MOST_VALUES: Final = 1_000_000
"""What a file may stand for; without references, a spec of 256 KiB has fewer."""


def parse_spec(raw: object, fragments: Fragments | None = None) -> StudySpec:
    """Return a decoded spec, checked; the recipe of its task becomes part of it, and what its space includes.

    What is included is looked up in `fragments`.

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
        # What models demand follows from the rest of the spec: what an older copy of it says may not hold any more.
        written = {key: value for key, value in raw.items() if key != "model_rules"}
        spec = StudySpec.model_validate(resolve_recipe(resolve_include(written, fragments)))
    except ValidationError as error:
        raise SpecError(issues_of(error)) from error
    if issues := list(contradictions(spec)):
        raise SpecError(issues)
    return spec


def stored_spec(raw: Mapping[str, Any]) -> StudySpec:
    """Return a spec that `dump_spec` wrote and that was checked then: what is refused by now stays readable."""
    return StudySpec.model_validate(raw)


def load_spec(path: Path, fragments: Fragments | None = None) -> StudySpec:
    """Return the spec in a YAML or JSON file, checked. See `parse_spec` for `fragments`.

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
    """Return the plain objects that YAML (which includes most JSON) or strict JSON stands for.

    `aliases=False` refuses YAML references, with which a few lines from a stranger can stand for gigabytes.

    Raises:
        SpecError: the text cannot be read; its path is `source`.
    """
    loader = _SpecLoader if aliases else _PlainLoader
    try:
        found = json.loads(text, object_pairs_hook=_each_once) if form == "json" else yaml.load(text, Loader=loader)  # noqa: S506 - SafeLoaders
    except RecursionError as error:
        raise SpecError([SpecIssue(path=source, message="is nested too deeply")]) from error
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if form == "json" else "YAML or JSON"
        reason = " ".join(str(error).split())
        raise SpecError([SpecIssue(path=source, message=f"is not valid {kind}: {reason}")]) from error
    if aliases and _values_up_to(_MOST_VALUES, found) > _MOST_VALUES:
        message = f"stands for more than {_MOST_VALUES} values, by references (*name) to references, or to itself"
        raise SpecError([SpecIssue(path=source, message=message)])
    return found


def dump_spec(spec: StudySpec) -> dict[str, Any]:
    """Return the spec as JSON-ready data; `parse_spec` of it is an equal spec, without the rules of models."""
    # Processes of earlier releases do not know these fields: they read all specs but those that use one.
    unused = {
        field for field in ("rules", "model_rules", "finalists", "checkpoints", "resources") if not getattr(spec, field)
    }
    document = spec.model_dump(mode="json", exclude=unused)
    for objective in document["objectives"]:
        if objective["last_epochs"] == 1:
            del objective["last_epochs"]
    if spec.budget.max_failed is None:
        del document["budget"]["max_failed"]
    return document


def _values_up_to(most: int, document: object) -> int:
    """Count what a document holds, references as often as they stand there, until there are more than `most`."""
    count, left = 0, [document]
    while left and count <= most:
        count += 1
        match left.pop():
            case dict() as inner:
                left += inner.values()
            case list() as inner:
                left += inner
    return count


class _SpecLoader(yaml.SafeLoader):
    """Reads the floats of YAML 1.2: 1e-4 is a number, which YAML 1.1 takes for text. Refuses a key written twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping; what a reference merges into it (`<<`) may be written again, anything else may not."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        _refuse_repeated(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE)
        return node


def _refuse_repeated(keys: Iterable[str]) -> None:
    """Raise ValueError for a key that comes twice: only its last value would be left."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"{key!r} is written twice in one place, and only the last would count: write it once")
        seen.add(key)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated(key for key, _ in pairs)
    return dict(pairs)


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
    """Yield an issue for text that no JSON column of Postgres takes: NUL and halves of surrogate pairs."""
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
