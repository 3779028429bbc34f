"""Checking that an expression has a meaning: every name has a value, and numbers, text and truth are not mixed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from ...meanings import nearest
from .expressions import (
    ORDER,
    All,
    Among,
    Comparison,
    Constant,
    Default,
    Divides,
    Kind,
    Name,
    Node,
    Not,
    Some,
    Value,
    kind_of,
)
from .text import RuleError

Kinds = frozenset[Kind]
_NUMBER: Final[Kinds] = frozenset({"number"})
_TRUTH: Final[Kinds] = frozenset({"truth"})
_WORDS: Final[Mapping[Kind, str]] = {"number": "a number", "text": "text", "truth": "true or false"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a parameter or setting: which values it can have."""

    kinds: Kinds
    """Empty where an expression cannot use its value, such as a list."""
    choices: tuple[Value, ...] | None = None
    """All values, where they are few."""


def check(root: Node, settings: Mapping[str, Setting]) -> None:
    """Check that an expression is a statement about `settings`.

    Raises:
        RuleError: a name is not known, or something is computed or compared with values of the wrong kind.
    """
    found = _kinds(root, settings)
    if not found <= _TRUTH:
        raise _wrong(root, f"is {_said(found)}: a rule compares, such as lr <= 0.1")


def _kinds(node: Node, settings: Mapping[str, Setting]) -> Kinds:
    """Return the kinds of value that a node can have."""
    if isinstance(node, Constant):
        return frozenset() if (kind := kind_of(node.value)) is None else frozenset({kind})
    if isinstance(node, Name):
        return _setting(node, settings).kinds
    if isinstance(node, Default):
        return _kinds(node.name, settings) | _kinds(node.otherwise, settings)
    if isinstance(node, Comparison | Divides | Among | Not | All | Some):
        _check_statement(node, settings)
        return _TRUTH
    _demand_numbers(node, settings)
    return _NUMBER


def _check_statement(node: Node, settings: Mapping[str, Setting]) -> None:
    if isinstance(node, Divides) or (isinstance(node, Comparison) and node.sign in ORDER):
        _demand_numbers(node, settings)
    elif isinstance(node, Comparison):
        _check_equality(node.left, node.right, settings)
        _check_equality(node.right, node.left, settings)
    elif isinstance(node, Among):
        for choice in node.choices:
            _check_equality(node.item, choice, settings)
    else:
        for part in node.children:
            found = _kinds(part, settings)
            if not found <= _TRUTH:
                raise _wrong(part, f"is {_said(found)}, and not, and, or, if and then join comparisons")


def _demand_numbers(node: Node, settings: Mapping[str, Setting]) -> None:
    for part in node.children:
        found = _kinds(part, settings)
        if not found & _NUMBER:
            raise _wrong(part, f"is {_said(found)}, and a number is needed")


def _check_equality(node: Node, other: Node, settings: Mapping[str, Setting]) -> None:
    """Refuse a comparison with what can never be equal: most likely a slip of the pen."""
    kinds, other_kinds = _kinds(node, settings), _kinds(other, settings)
    if not kinds & other_kinds:
        raise _wrong(other, f"is {_said(other_kinds)}, which is never equal to {_said(kinds)}")
    if isinstance(node, Name) and isinstance(other, Constant) and isinstance(other.value, str):
        choices = _setting(node, settings).choices
        if choices is not None and other.value not in choices:
            near = get_close_matches(other.value, [str(choice) for choice in choices], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "it has: " + ", ".join(map(str, choices))
            raise _wrong(other, f"is not a value of {node.name}; {hint}")


def _setting(node: Name, settings: Mapping[str, Setting]) -> Setting:
    if node.name not in settings:
        near = nearest(node.name, settings)
        quotes = "" if "." in node.name else ", or write text in quotes"
        hint = f"did you mean {near}?" if near is not None else f"name a parameter or a setting of task.base{quotes}"
        raise _wrong(node, f"has no value here, neither in the space nor in task.base; {hint}")
    if not settings[node.name].kinds:
        raise _wrong(node, "is not set, or not to a single value; give it one in task.base")
    return settings[node.name]


def _wrong(node: Node, message: str) -> RuleError:
    return RuleError(message, node.start, node.end, continues=True)


def _said(kinds: Kinds) -> str:
    return " or ".join(_WORDS[kind] for kind in sorted(kinds))
