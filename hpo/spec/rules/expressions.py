"""Expressions over the settings of a configuration: their value, and how far a statement is from holding.

An expression is a tree of the nodes below. It computes with numbers, text, true and false as Python does, with two
differences: true and false are not numbers, and a number that grows too large is an error instead of a long wait.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Value = bool | int | float | str
Values = Mapping[str, Value]
Kind = Literal["number", "text", "truth"]

MOST_BITS: Final = 4096
"""Whole numbers with more bits are an error: a short text can stand for one that fills the memory."""
_SMALLEST_GAP: Final = 1e-12

ARITHMETIC: Final[Mapping[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
ORDER: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPPOSITE: Final = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
FUNCTIONS: Final[Mapping[str, Callable[..., float]]] = {"min": min, "max": max, "abs": abs}


class NotComputableError(ArithmeticError):
    """The expression has no value for these settings."""


def kind_of(value: object) -> Kind | None:
    """Return the kind of a value; None for one that an expression cannot use, such as a list."""
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Node(ABC):
    """A part of an expression, at the characters `start` to `end` of the text."""

    start: int
    end: int

    @abstractmethod
    def evaluate(self, values: Values) -> Value:
        """Return the value of the expression, where the settings have `values`.

        Raises:
            ArithmeticError: it has none, such as after a division by zero.
        """

    def gap(self, values: Values, *, wanted: bool = True) -> float:
        """Return how far the statement is from being `wanted`; 0 only where it is. No unit: it guides a search."""
        return 0.0 if self.evaluate(values) is wanted else 1.0

    @property
    def children(self) -> tuple[Node, ...]:
        """The expressions that this one is made of."""
        return ()

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """A number, a text, true or false."""

    value: Value

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return self.value


@dataclass(frozen=True, slots=True)
class Name(Node):
    """The value of a parameter or setting."""

    name: str

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return values[self.name]


@dataclass(frozen=True, slots=True)
class Default(Node):
    """`default(NAME, VALUE)`: the value of a parameter, or another where the parameter does not exist."""

    name: Name
    otherwise: Node

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return values[self.name.name] if self.name.name in values else self.otherwise.evaluate(values)

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return (self.name, self.otherwise)


@dataclass(frozen=True, slots=True)
class Negative(Node):
    """`-x`."""

    inner: Node

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return -_number(self.inner.evaluate(values))

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return (self.inner,)


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    """`a + b`, and the other operators of `ARITHMETIC`."""

    sign: str
    left: Node
    right: Node

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        left, right = _number(self.left.evaluate(values)), _number(self.right.evaluate(values))
        if self.sign in ("*", "**"):
            _check_growth(left, right, is_power=self.sign == "**")
        return _number(ARITHMETIC[self.sign](left, right))

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return (self.left, self.right)


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`min(...)`, `max(...)` or `abs(x)`."""

    function: str
    arguments: tuple[Node, ...]

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return FUNCTIONS[self.function](*[_number(argument.evaluate(values)) for argument in self.arguments])

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return self.arguments


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    """`a < b`, the other operators of `ORDER`, `a == b` and `a != b`."""

    sign: str
    left: Node
    right: Node

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return self._holds(self.sign, self.left.evaluate(values), self.right.evaluate(values))

    def gap(self, values: Values, *, wanted: bool = True) -> float:
        """See `Node`: the relative difference of the two sides."""
        left, right = self.left.evaluate(values), self.right.evaluate(values)
        sign = self.sign if wanted else _OPPOSITE[self.sign]
        if self._holds(sign, left, right):
            return 0.0
        if sign == "!=" or kind_of(left) != "number" or kind_of(right) != "number":
            return 1.0
        return _distance(_number(left), _number(right))

    @staticmethod
    def _holds(sign: str, left: Value, right: Value) -> bool:
        if sign in ORDER:
            return ORDER[sign](_number(left), _number(right))
        return are_equal(left, right) is (sign == "==")

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return (self.left, self.right)


@dataclass(frozen=True, slots=True)
class Divides(Node):
    """`a divides b`: b is a multiple of a."""

    divisor: Node
    of: Node

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return _number(self.of.evaluate(values)) % _number(self.divisor.evaluate(values)) == 0

    def gap(self, values: Values, *, wanted: bool = True) -> float:
        """See `Node`: how far the nearest multiple is, in units of the divisor."""
        divisor, of = _number(self.divisor.evaluate(values)), _number(self.of.evaluate(values))
        rest = abs(of % divisor)
        if not wanted:
            return 1.0 if rest == 0 else 0.0
        return 0.0 if rest == 0 else min(rest, abs(divisor) - rest) / abs(divisor) + _SMALLEST_GAP

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return (self.divisor, self.of)


@dataclass(frozen=True, slots=True)
class Among(Node):
    """`x in [a, b, c]`."""

    item: Node
    choices: tuple[Constant, ...]

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        item = self.item.evaluate(values)
        return any(are_equal(item, choice.value) for choice in self.choices)

    def gap(self, values: Values, *, wanted: bool = True) -> float:
        """See `Node`: the relative difference to the nearest choice."""
        item = self.item.evaluate(values)
        if any(are_equal(item, choice.value) for choice in self.choices) is wanted:
            return 0.0
        numbers = [choice.value for choice in self.choices if kind_of(choice.value) == "number"]
        if not wanted or kind_of(item) != "number" or not numbers:
            return 1.0
        return min(_distance(_number(item), _number(number)) for number in numbers)

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return (self.item, *self.choices)


@dataclass(frozen=True, slots=True)
class Not(Node):
    """`not a`."""

    inner: Node

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return not self.inner.evaluate(values)

    def gap(self, values: Values, *, wanted: bool = True) -> float:
        """See `Node`."""
        return self.inner.gap(values, wanted=not wanted)

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return (self.inner,)


@dataclass(frozen=True, slots=True)
class All(Node):
    """`a and b`. As in Python, a part is looked at only if those before it hold."""

    parts: tuple[Node, ...]

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return all(part.evaluate(values) for part in self.parts)

    def gap(self, values: Values, *, wanted: bool = True) -> float:
        """See `Node`."""
        gaps = [_gap_or_inf(part, values, wanted=wanted) for part in self.parts]
        return sum(gaps) if wanted else min(gaps)

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return self.parts


@dataclass(frozen=True, slots=True)
class Some(Node):
    """`a or b`. As in Python, a part is looked at only if none before it holds."""

    parts: tuple[Node, ...]

    def evaluate(self, values: Values) -> Value:
        """See `Node`."""
        return any(part.evaluate(values) for part in self.parts)

    def gap(self, values: Values, *, wanted: bool = True) -> float:
        """See `Node`."""
        gaps = [_gap_or_inf(part, values, wanted=wanted) for part in self.parts]
        return min(gaps) if wanted else sum(gaps)

    @property
    def children(self) -> tuple[Node, ...]:
        """See `Node`."""
        return self.parts


def are_equal(left: Value, right: Value) -> bool:
    """Return whether two values are equal; true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _number(value: object) -> float:
    # A choice may mix words and numbers, and a root of a negative number is complex.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotComputableError(f"{value!r} is not a number")
    return value


def _check_growth(left: float, right: float, *, is_power: bool) -> None:
    if not isinstance(left, int) or not isinstance(right, int):
        return
    bits = left.bit_length() * abs(right) if is_power else left.bit_length() + right.bit_length()
    if bits > MOST_BITS and (abs(left) > 1 or not is_power):
        raise NotComputableError("the number is too large")


def _distance(left: float, right: float) -> float:
    try:
        size = abs(left) + abs(right)
        found = abs(left - right) / size if size else 0.0
    except OverflowError:
        return math.inf
    return _SMALLEST_GAP + (found if math.isfinite(found) else math.inf)


def _gap_or_inf(node: Node, values: Values, *, wanted: bool) -> float:
    try:
        return node.gap(values, wanted=wanted)
    except ArithmeticError:
        return math.inf
