"""Change values in the text of a spec, and leave the rest of the text as a person wrote it: comments, order, layout."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from ..errors import SpecError, SpecIssue
from .load import decode

Path = tuple[str | int, ...]
"""Where a value stands: keys of mappings and places in lists."""


class _Nothing:
    """What stands for no value."""


NOTHING: Final = _Nothing()
"""As the new value of a path: its key goes."""


def read_document(text: str) -> dict[str, Any]:
    """Return the plain objects that a spec in YAML or JSON stands for, unchecked.

    Raises:
        SpecError: it cannot be read, or is no mapping.
    """
    found = decode(text, form="json" if _is_json(text) else "yaml", aliases=False)
    if not isinstance(found, dict):
        raise SpecError([SpecIssue(path="", message="a study spec is a mapping of fields, such as name: my-study")])
    return found


def value_at(document: Any, path: Path) -> object:
    """Return what stands at a path of a document; `NOTHING` where there is nothing."""
    for key in path:
        is_there = (
            key in document
            if isinstance(document, Mapping)
            else isinstance(document, list) and isinstance(key, int) and 0 <= key < len(document)
        )
        if not is_there:
            return NOTHING
        document = document[key]
    return document


def with_value(text: str, path: Path, value: object) -> str:
    """Return the text of a spec with another value at a path; with `NOTHING`, the key there goes.

    Mappings that are missing on the way are added, and go with their last key. Where the text is laid out in a way that
    cannot be changed in its place, it is written anew, without its comments.

    Raises:
        SpecError: the text cannot be read, or a list or a plain value stands where the path needs a mapping.
    """
    document = read_document(text)
    before = value_at(document, path)
    if before is value or (before == value and type(before) is type(value)):
        return text
    wanted = _changed(document, path, value)
    try:
        found = _edited(text, path, value)
        if read_document(found) == wanted:
            return found
    except (SpecError, yaml.YAMLError, _NotInPlaceError):
        pass  # as the docstring says
    if _is_json(text):
        return json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


class _NotInPlaceError(Exception):
    """The text cannot be changed in its place."""


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _changed(document: dict[str, Any], path: Path, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    parents: list[Any] = [changed]
    for key in path[:-1]:
        parent = parents[-1]
        if isinstance(parent, dict) and isinstance(key, str):
            if parent.get(key) is None:
                parent[key] = {}
            parents.append(parent[key])
        elif isinstance(parent, list) and isinstance(key, int) and key < len(parent):
            parents.append(parent[key])
        else:
            raise _no_mapping(path)
    if not isinstance(parents[-1], dict):
        raise _no_mapping(path)
    if value is not NOTHING:
        parents[-1][path[-1]] = value
        return changed
    parents[-1].pop(path[-1], None)
    for parent, key in zip(reversed(parents[:-1]), reversed(path[:-1]), strict=True):
        if parent[key] != {} or isinstance(parent, list):
            break
        del parent[key]
    return changed


def _no_mapping(path: Path) -> SpecError:
    where = ".".join(map(str, path[:-1]))
    return SpecError([SpecIssue(path=where, message="this is no mapping of fields; change it in the YAML")])


def _edited(text: str, path: Path, value: object) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise _NotInPlaceError
    nodes = _nodes_on(root, path)
    is_there = len(nodes) == len(path) + 1  # not in its place where `<<` has merged it
    if value is NOTHING:
        if not is_there:
            raise _NotInPlaceError
        return _without(text, nodes, path)
    if is_there:
        return _replaced(text, nodes[-1], value)
    rest = path[len(nodes) - 1 :]
    for key in reversed(rest[1:]):
        value = {key: value}
    holder = nodes[-1]
    if not isinstance(holder, yaml.MappingNode):  # `budget:` without anything
        return _replaced(text, holder, {rest[0]: value})
    return _with_pair(text, holder, str(rest[0]), value)


def _nodes_on(root: yaml.Node, path: Path) -> list[yaml.Node]:
    """Return the nodes along a path, as far as they are there."""
    nodes = [root]
    for key in path:
        node = nodes[-1]
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            nodes.append(node.value[key])
        elif isinstance(node, yaml.MappingNode) and (pair := _pair_of(node, key)) is not None:
            nodes.append(pair[1])
        else:
            break
    return nodes


def _pair_of(node: yaml.MappingNode, key: str | int) -> tuple[yaml.ScalarNode, yaml.Node] | None:
    return next((pair for pair in node.value if isinstance(pair[0], yaml.ScalarNode) and pair[0].value == key), None)


def _end(node: yaml.Node) -> int:
    """Return where the last thing of a node ends: a block goes on to what follows it, comments included."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return end


def _written(value: object, *, is_json: bool) -> str:
    if is_json:
        return json.dumps(value, ensure_ascii=False)
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    return str(text).removesuffix("\n...\n").rstrip("\n")


def _replaced(text: str, node: yaml.Node, value: object) -> str:
    start, end = node.start_mark.index, _end(node)
    written = _written(value, is_json=_is_json(text))
    before = text[:start]
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        before = before.rstrip()  # a block begins on a line of its own
    return f"{before}{'' if before.endswith((' ', '{', '[')) else ' '}{written}{text[end:]}"


def _with_pair(text: str, holder: yaml.MappingNode, key: str, value: object) -> str:
    is_json = _is_json(text)
    pair = f"{_written(key, is_json=is_json)}: {_written(value, is_json=is_json)}"
    if holder.flow_style:
        close = holder.end_mark.index - 1
        inside = text[holder.start_mark.index + 1 : close].rstrip()
        at = holder.start_mark.index + 1 + len(inside)
        comma = "" if not holder.value or inside.endswith(",") else ", "
        return f"{text[:at]}{comma}{pair}{text[at:]}"
    end = text.find("\n", _end(holder))
    end = len(text) if end < 0 else end
    first: yaml.Node = holder.value[0][0]
    return f"{text[:end]}\n{' ' * first.start_mark.column}{pair}{text[end:]}"


def _without(text: str, nodes: Sequence[yaml.Node], path: Path) -> str:
    """Remove a pair; where it is the only one of its mapping, that one, too."""
    depth = len(path)
    while depth > 1 and _is_alone(nodes[depth - 1]) and isinstance(path[depth - 2], str):
        depth -= 1
    holder, key = nodes[depth - 1], path[depth - 1]
    if not isinstance(holder, yaml.MappingNode) or (pair := _pair_of(holder, key)) is None:
        raise _NotInPlaceError
    start, end = pair[0].start_mark.index, _end(pair[1])
    if holder.flow_style:
        if (after := re.match(r"\s*,\s*", text[end:])) is not None:
            return text[:start] + text[end + after.end() :]
        before = re.search(r",\s*$", text[:start])
        return text[: start if before is None else before.start()] + text[end:]
    line = text.rfind("\n", 0, start) + 1
    if text[line:start].strip():
        raise _NotInPlaceError  # the first of an item of a list
    after_line = text.find("\n", end)
    return text[:line] + ("" if after_line < 0 else text[after_line + 1 :])


def _is_alone(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode) and len(node.value) == 1
