"""Reading a rule: from its text to an expression. Nothing of the text is run as code.

    rule        = "if" either "then" rule | either
    either      = both ("or" both)*
    both        = negation ("and" negation)*
    negation    = "not" negation | comparison
    comparison  = sum (("==" | "!=" | "<" | "<=" | ">" | ">=" | "divides") sum | ["not"] "in" list)*
    sum         = product (("+" | "-") product)*
    product     = signed (("*" | "/" | "//" | "%") signed)*
    signed      = ("-" | "+") signed | power
    power       = atom ["**" signed]
    atom        = number | text | "true" | "false" | name | "(" rule ")"
                | ("min" | "max" | "abs") "(" sum ("," sum)* ")" | "default" "(" name "," sum ")"
    list        = "[" constant ("," constant)* "]"

Signs bind as in Python, and comparisons are chained as there: `4 <= x <= 8` is `4 <= x and x <= 8`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from .expressions import (
    ORDER,
    All,
    Among,
    Arithmetic,
    Call,
    Comparison,
    Constant,
    Default,
    Divides,
    Name,
    Negative,
    Node,
    Not,
    Some,
)
from .text import RuleError, Token, tokens

MOST_NESTING: Final = 24
_COMPARING: Final = frozenset({"==", "!=", *ORDER, "divides", "in", "not"})
_TRUTH: Final = {"true": True, "True": True, "false": False, "False": False}


def parse(text: str) -> Node:
    """Return the expression that a text stands for.

    Raises:
        RuleError: it does not follow the grammar.
    """
    reader = _Reader(text)
    found = reader.rule()
    reader.expect_end()
    return found


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = list(tokens(text))
        self._place = 0
        self._nesting = 0

    # ---------------------------------------------------------------- statements

    def rule(self) -> Node:
        self._enter()
        start = self._next.start
        if self._take("if"):
            condition = self.either()
            self._require("then", "write if CONDITION then RULE")
            found: Node = Some(start, self._end, (Not(condition.start, condition.end, condition), self.rule()))
        else:
            found = self.either()
        self._nesting -= 1
        return found

    def either(self) -> Node:
        return self._joined("or", Some, self.both)

    def both(self) -> Node:
        return self._joined("and", All, self.negation)

    def negation(self) -> Node:
        start = self._next.start
        if not self._take("not"):
            return self.comparison()
        self._enter()
        inner = self.negation()
        self._nesting -= 1
        return Not(start, self._end, inner)

    def comparison(self) -> Node:
        left = self.sum()
        found: list[Node] = []
        while self._next.written in _COMPARING and self._next.kind in ("sign", "word"):
            _demand_shallow(left)
            sign = self._advance()
            if sign.written in ("in", "not"):
                found.append(self._among(left, sign))
                continue
            right = self.sum()
            _demand_shallow(right)
            span = left.start, right.end
            if sign.written == "divides":
                found.append(Divides(*span, left, right))
            else:
                found.append(Comparison(*span, sign.written, left, right))
            left = right
        if not found:
            return left
        return found[0] if len(found) == 1 else All(found[0].start, found[-1].end, tuple(found))

    def _among(self, item: Node, word: Token) -> Node:
        if word.written == "not":
            self._require("in", "write NAME not in [VALUE, VALUE]")
        self._require("[", "write the values as a list, such as [2, 4, 8]")
        choices = [self._constant()]
        while self._take(","):
            choices.append(self._constant())
        self._require("]", "close the list with ]")
        among = Among(item.start, self._end, item, tuple(choices))
        return Not(item.start, self._end, among) if word.written == "not" else among

    # ---------------------------------------------------------------- values

    def sum(self) -> Node:
        return self._chain(("+", "-"), self.product)

    def product(self) -> Node:
        return self._chain(("*", "/", "//", "%"), self.signed)

    def signed(self) -> Node:
        start = self._next.start
        if self._next.written not in ("-", "+"):
            return self.power()
        sign = self._advance()
        self._enter()
        inner = self.signed()
        self._nesting -= 1
        return Negative(start, inner.end, inner) if sign.written == "-" else inner

    def power(self) -> Node:
        base = self.atom()
        if not self._take("**"):
            return base
        self._enter()
        exponent = self.signed()
        self._nesting -= 1
        return Arithmetic(base.start, exponent.end, "**", base, exponent)

    def atom(self) -> Node:
        token = self._next
        if token.kind in ("number", "text") or token.written in _TRUTH:
            return self._constant()
        if token.kind == "name":
            return self._name()
        if self._take("("):
            inner = self.rule()
            self._require(")", "close the bracket with )")
            return inner
        if token.written in ("min", "max", "abs"):
            return self._call()
        if token.written == "default":
            return self._default()
        raise self._unexpected("a name, a number or a text")

    def _name(self) -> Name:
        token = self._advance()
        if token.kind != "name":
            self._place -= 1
            raise self._unexpected("a name")
        return Name(token.start, token.end, token.written)

    def _constant(self) -> Constant:
        start = self._next.start
        is_negative = self._take("-")
        token = self._advance()
        if token.kind == "number":
            number = _number(token)
            return Constant(start, token.end, -number if is_negative else number)
        if not is_negative and token.kind == "text":
            return Constant(start, token.end, token.written[1:-1])
        if not is_negative and token.written in _TRUTH:
            return Constant(start, token.end, _TRUTH[token.written])
        self._place -= 1
        raise self._unexpected("a number, a text in quotes, true or false")

    def _call(self) -> Call:
        function = self._advance()
        self._require("(", f"write {function.written}(...)")
        arguments = [self.sum_within()]
        while self._take(","):
            arguments.append(self.sum_within())
        self._require(")", "close the bracket with )")
        wanted = "one value" if function.written == "abs" else "two values or more"
        if (len(arguments) == 1) != (function.written == "abs"):
            raise RuleError(f"{function.written} takes {wanted}", function.start, self._end)
        return Call(function.start, self._end, function.written, tuple(arguments))

    def _default(self) -> Default:
        word = self._advance()
        self._require("(", "write default(NAME, VALUE)")
        name = self._name()
        self._require(",", "write default(NAME, VALUE)")
        otherwise = self.sum_within()
        self._require(")", "close the bracket with )")
        return Default(word.start, self._end, name, otherwise)

    def sum_within(self) -> Node:
        self._enter()
        found = self.sum()
        self._nesting -= 1
        return found

    # ---------------------------------------------------------------- tokens

    def expect_end(self) -> None:
        if self._next.kind != "end":
            message = "the rule does not continue like this; join comparisons with and, or"
            raise RuleError(message, self._next.start, self._next.end)

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    @property
    def _end(self) -> int:
        """Where the token that was read last ends."""
        return self._tokens[self._place - 1].end

    def _advance(self) -> Token:
        token = self._next
        if token.kind == "end":
            raise self._unexpected("more")
        self._place += 1
        return token

    def _take(self, written: str) -> bool:
        if self._next.kind in ("sign", "word") and self._next.written == written:
            self._place += 1
            return True
        return False

    def _require(self, written: str, remedy: str) -> None:
        if not self._take(written):
            token = self._next
            raise RuleError(f"{written!r} is expected here; {remedy}", token.start, token.end)

    def _unexpected(self, wanted: str) -> RuleError:
        token = self._next
        if token.kind == "end":
            return RuleError(f"the rule ends where {wanted} is expected", token.start, token.end)
        return RuleError(f"{wanted} is expected here", token.start, token.end)

    def _enter(self) -> None:
        self._nesting += 1
        if self._nesting > MOST_NESTING:
            message = f"the rule is nested more than {MOST_NESTING} deep; write several rules"
            raise RuleError(message, self._next.start, self._next.end)

    def _joined(self, word: str, node: type[All] | type[Some], part: Callable[[], Node]) -> Node:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else node(parts[0].start, parts[-1].end, tuple(parts))

    def _chain(self, signs: tuple[str, ...], part: Callable[[], Node]) -> Node:
        found = part()
        while self._next.kind == "sign" and self._next.written in signs:
            sign = self._advance()
            right = part()
            found = Arithmetic(found.start, right.end, sign.written, found, right)
        return found


def _demand_shallow(operand: Node) -> None:
    """Refuse to compare comparisons of comparisons: chains of them would take exponential time to check."""
    if _comparisons_deep(operand) > 1:
        message = "compares a comparison already; join comparisons by and, or, not, or if and then"
        raise RuleError(message, operand.start, operand.end, continues=True)


def _comparisons_deep(node: Node) -> int:
    inside = max((_comparisons_deep(part) for part in node.children), default=0)
    return inside + isinstance(node, Comparison | Divides | Among)


def _number(token: Token) -> int | float:
    if token.written.isdigit():
        return int(token.written)
    number = float(token.written)
    if not math.isfinite(number):
        raise RuleError("the number is too large", token.start, token.end)
    return number
