"""Rules about configurations, such as `model.alpha divides clip.frames`: a small language, and what the rules allow."""

from __future__ import annotations

from .allowed import allowed, examples, impossible, is_possible, near, nearest, said
from .rule import Rule, located, read_rule
from .rulebook import Rulebook
from .text import MOST_CHARACTERS, RuleError

__all__ = [
    "MOST_CHARACTERS",
    "Rule",
    "RuleError",
    "Rulebook",
    "allowed",
    "examples",
    "impossible",
    "is_possible",
    "located",
    "near",
    "nearest",
    "read_rule",
    "said",
]
