"""Frames with numbers in their names: their order, and which one is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from ..errors import DatasetFormatError, VideoError

_NUMBER = re.compile(r"(?<!%)((?:%%)*)%(?:0?(\d+))?d")
_DIGITS = re.compile(r"(\d+)")
_LEAST_STRIDED = 4
"""Fewest frames that show a stride: with less, a larger step is rather a missing frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """A printf pattern with one number: `img_%05d.jpg`."""

    prefix: str
    width: int
    suffix: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the pattern that `text` writes; `%%` stands for a percent sign.

        Raises:
            DatasetFormatError: it has no number, or several.
        """
        found = list(_NUMBER.finditer(text))
        if len(found) != 1:
            raise DatasetFormatError(f"{text!r} is not a name with one number; write it like img_%05d.jpg")
        number = found[0]
        prefix = text[: number.start()] + number[1]
        return cls(
            prefix=prefix.replace("%%", "%"),
            width=int(number[2] or 0),
            suffix=text[number.end() :].replace("%%", "%"),
        )

    def name(self, number: int) -> str:
        """Return the name of one frame."""
        return f"{self.prefix}{number:0{self.width}d}{self.suffix}"

    def number(self, name: str) -> int | None:
        """Return the number in a name, or None if the name does not match the pattern."""
        digits = name[len(self.prefix) : len(name) - len(self.suffix)]
        if not digits.isascii() or not digits.isdigit() or self.name(int(digits)) != name:
            return None
        return int(digits)


def in_order(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names of a clip's frames in order: those of `pattern`, or all in natural order if it is empty.

    Raises:
        VideoError: a number is missing between the first and the last.
    """
    if not pattern:
        ordered = sorted(names, key=natural_key)
        _require_unbroken(ordered)
        return ordered
    parsed = Pattern.parse(pattern)
    numbers = sorted(number for name in names if (number := parsed.number(name)) is not None)
    step = stride(numbers)
    for number, following in pairwise(numbers):
        if following != number + step:
            raise _missing(parsed.name(number + step), parsed.name(number), parsed.name(following))
    return [parsed.name(number) for number in numbers]


def stride(numbers: Sequence[int]) -> int:
    """Return k for ascending numbers of frames of which every k-th was kept, such as 1, 6, 11; 1 for others."""
    return _usual_step(numbers) or 1 if len(numbers) >= _LEAST_STRIDED else 1


def _usual_step(numbers: Sequence[int]) -> int:
    """Return the step between most of the ascending numbers, 0 if there is none."""
    steps = Counter(following - number for number, following in pairwise(numbers))
    step, count = steps.most_common(1)[0] if steps else (0, 0)
    return step if 2 * count > len(numbers) - 1 else 0


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts numbers in names by their values: `frame2` before `frame10`."""
    parts = _DIGITS.split(name)
    numbered = ((int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in parts)
    return (*numbered, (-1, name))


def _require_unbroken(ordered: list[str]) -> None:
    """Check that names which count up by one have no gap, and that no number has two names with different text."""
    split = [_DIGITS.split(name) for name in ordered]
    named: dict[int, str] = {}
    for name, parts in zip(ordered, split, strict=True):
        if len(parts) == 3:
            before = named.setdefault(int(parts[1]), name)
            if before != name:
                raise VideoError(
                    f"{before} and {name} are two frames of one number: put each series into its own folder"
                )
    if len(ordered) < 3 or any(len(parts) < 3 for parts in split):
        return
    if len({(*parts[:-2], parts[-1]) for parts in split}) > 1:
        return
    numbers = [int(parts[-2]) for parts in split]
    step = _usual_step(numbers)
    for at, (number, following) in enumerate(pairwise(numbers)):
        if following > number + step and step > 0:
            absent = str(number + step).zfill(len(split[at][-2]))
            raise _missing("".join((*split[at][:-2], absent, split[at][-1])), ordered[at], ordered[at + 1])


def _missing(name: str, before: str, after: str) -> VideoError:
    return VideoError(f"frame {name} is missing between {before} and {after}", status="truncated")
