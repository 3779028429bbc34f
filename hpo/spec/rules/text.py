"""The words, numbers and signs that the text of a rule is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

WORDS: Final = frozenset(
    {
        "and",
        "or",
        "not",
        "in",
        "divides",
        "if",
        "then",
        "true",
        "false",
        "True",
        "False",
        "min",
        "max",
        "abs",
        "default",
    }
)
"""Words with a meaning of their own: no parameter is called so."""
MOST_CHARACTERS: Final = 500

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<name>[A-Za-z_]\w*(?:\.\w+)*)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<sign>\*\*|//|==|!=|<=|>=|[-+*/%<>()\[\],])""",
    re.VERBOSE | re.ASCII,
)


class RuleError(ValueError):
    """A rule is wrong: the characters `start` to `end` of its text, and a sentence.

    The subject of the sentence is what is written there if it `continues` it: "is text, and a number is needed".
    """

    def __init__(self, message: str, start: int, end: int, *, continues: bool = False) -> None:
        super().__init__(message)
        self.continues = continues
        self.start = start
        self.end = end


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number, text or sign, as written, at the characters `start` to `end`."""

    kind: str
    """number, name, word (one of `WORDS`), text, sign or end."""
    written: str
    start: int
    end: int


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of the text, and one of kind `end` after the last.

    Raises:
        RuleError: there is something that no rule contains.
    """
    if len(text) > MOST_CHARACTERS:
        message = f"the rule has {len(text)} characters; write several rules of at most {MOST_CHARACTERS} each"
        raise RuleError(message, 0, 0)
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise RuleError(_not_understood(text[place:]), place, place + 1)
        kind, written = found.lastgroup, found.group()
        if kind is not None and kind != "space":
            yield Token("word" if written in WORDS else kind, written, place, found.end())
        place = found.end()
    yield Token("end", "", place, place)


def _not_understood(rest: str) -> str:
    if rest[0] == "=":
        return "write == to compare"
    if rest[0] in "\"'":
        return f"the text does not end; close it with another {rest[0]}"
    if rest[0] in "&|!":
        return "write and, or, not"
    if rest[0].isdigit():
        return "this is not a number, and no name begins with a digit"
    return f"{rest[0]!r} has no meaning in a rule"
