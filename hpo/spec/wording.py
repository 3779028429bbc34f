"""What pydantic finds wrong, in words for the person who wrote the value."""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_RULE: Final = re.compile(r"\w+ should (.*)", re.DOTALL)


def requirement(found: ErrorDetails) -> str:
    """Return what a value must be, such as `must be greater than 0`; pydantic's message where it names no rule."""
    message = str(found["msg"]).removeprefix("Value error, ")
    rule = _RULE.fullmatch(message)
    return message if rule is None else f"must {rule[1]}"


def complaint(found: ErrorDetails) -> str:
    """Return the requirement and the value that does not meet it."""
    wanted = requirement(found)
    return f"{wanted}, but it is {found['input']!r}" if wanted.startswith("must ") else wanted


def not_valid(key: str, value: object, error: ValidationError) -> str:
    """Return a sentence: `value` is not a valid `key`, and the first rule that it breaks."""
    wanted = requirement(error.errors()[0])
    return f"{value!r} is not a valid {key}: " + (f"it {wanted}" if wanted.startswith("must ") else wanted)
