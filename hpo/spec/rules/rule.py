"""One rule: a statement about the settings of a configuration, read from its text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from .expressions import Default, Name, Node, Values
from .grammar import parse
from .kinds import Setting, check
from .text import RuleError


@dataclass(frozen=True, slots=True)
class Rule:
    """A statement that every configuration must keep."""

    text: str
    root: Node
    names: tuple[str, ...]
    """The settings it mentions, each once."""
    required: frozenset[str]
    """Those without which it says nothing."""

    def holds(self, values: Values) -> bool:
        """Return whether a configuration keeps the rule; one that lacks a parameter that the rule mentions does.

        One for which the rule cannot be computed, such as after a division by zero, does not.
        """
        if not self.required <= values.keys():
            return True
        try:
            return self.root.evaluate(values) is True
        except ArithmeticError:
            return False

    def gap(self, values: Values) -> float:
        """Return how far a configuration is from keeping the rule: 0 where it does, without a unit."""
        if self.holds(values):
            return 0.0
        try:
            return max(self.root.gap(values), 1e-12)
        except ArithmeticError:
            return math.inf

    def shown(self, values: Values) -> str:
        """Return what a configuration that breaks the rule has in the places that the rule mentions."""
        return ", ".join(f"{name} = {values[name]!r}" for name in self.names if name in values)

    def problems(self, settings: Mapping[str, Setting]) -> Iterator[str]:
        """Yield a sentence, with its place in the rule, for everything that these settings give no meaning."""
        try:
            check(self.root, settings)
        except RuleError as error:
            yield located(self.text, error)


@lru_cache(maxsize=4096)
def read_rule(text: str) -> Rule:
    """Return the rule that a text stands for.

    Raises:
        RuleError: it is not one.
    """
    root = parse(text)
    names = [node for node in root.walk() if isinstance(node, Name)]
    optional = {id(node.name) for node in root.walk() if isinstance(node, Default)}
    required = frozenset(node.name for node in names if id(node) not in optional)
    return Rule(text, root, tuple(dict.fromkeys(node.name for node in names)), required)


def located(text: str, error: RuleError) -> str:
    """Return what is wrong, with the place in the rule: its character from 1, and what is written there."""
    written = text[error.start : error.end]
    place = f"in the rule `{_short(text)}`, at character {error.start + 1}"
    if error.continues:
        return f"{place}: `{written}` {error}"
    return f"{place}" + (f", `{written}`" if written else "") + f": {error}"


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."
