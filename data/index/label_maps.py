"""Reading class lists, which give the classes their numbers.

1 ApplyEyeMakeup                             numbered, from 0 or 1 (classInd.txt)
abseiling                                    one name per line, numbered from 0 (mmaction2)
{"Holding something": "0"}                   name to number, or number to name (labels.json)
["abseiling", "air drumming"]                names
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DatasetFormatError, quoted
from .listing import find_case_insensitive, find_folder, is_file, names_in, read_json, read_lines, whole_number

NAMES = (
    "classInd.txt",
    "classInd",
    "classes.txt",
    "class_names.txt",
    "labels.txt",
    "labels.json",
    "categories.txt",
    "category.txt",
)
_LABEL_MAP = re.compile(r"(?:.*[_-])?(?:label_?map.*\.txt|labels\.json)", re.IGNORECASE)
_NUMBERED = re.compile(r"^([0-9]{1,9})\s+(\S.*)$")
_FOLDERS = ("", "annotations")


def find_class_list(root: Path, folders: Sequence[str] = _FOLDERS) -> Path | None:
    """Return the class list in one of `folders` below `root`, or None.

    Raises:
        DatasetFormatError: there are several label maps.
    """
    for name in folders:
        folder = find_folder(root, name)
        if folder is None:
            continue
        for spelling in NAMES:
            found = find_case_insensitive(folder, spelling)
            if found is not None and is_file(found):
                return found
        named = (folder / name for name in names_in(folder) if _LABEL_MAP.fullmatch(name))
        maps = sorted(path for path in named if is_file(path))
        if len(maps) > 1:
            names = " and ".join(entry.name for entry in maps)
            raise DatasetFormatError(f"{folder} has several label maps, {names}; leave the one that the lists use")
        if maps:
            return maps[0]
    return None


def read_class_list(path: Path) -> tuple[str, ...]:
    """Return the class names of a list in the order of their labels.

    Raises:
        DatasetFormatError: numbers have gaps, or two classes have one name.
    """
    in_json = path.suffix.lower() == ".json"
    return checked_names(path, _from_json(path, read_json(path)) if in_json else _from_lines(path))


def first_number(path: Path) -> int | None:
    """Return the number of the first class in a list that numbers its classes, or None in a list of names alone."""
    if path.suffix.lower() == ".json":
        content = read_json(path)
        if not isinstance(content, dict):
            return None
        numbers = [
            number for pair in content.items() for text in pair if (number := whole_number(str(text))) is not None
        ]
        return min(numbers, default=None)
    found = [_NUMBERED.match(line) for _, line in read_lines(path)]
    return min((int(match[1]) for match in found if match), default=None)


def checked_names(path: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Return `names`, which must all differ.

    Raises:
        DatasetFormatError: a class is listed twice, or there is no class; the message names `path`.
    """
    names, seen = tuple(names), set()
    for name in names:
        if name.lower() in seen:
            raise DatasetFormatError(f"{path}: a class is named twice, {quoted(name)}; give every class one name")
        seen.add(name.lower())
    if not names:
        raise DatasetFormatError(f"{path} contains no class: add the class names")
    return names


def in_order(path: Path, numbered: dict[int, str]) -> list[str]:
    """Return names in the order of their numbers, which run from 0 or 1.

    Raises:
        DatasetFormatError: the numbers have gaps.
    """
    first = min(numbered, default=0)
    if first not in {0, 1} or sorted(numbered) != list(range(first, first + len(numbered))):
        raise DatasetFormatError(f"{path}: class numbers must run from 0 or 1 without a gap")
    return [numbered[number] for number in sorted(numbered)]


def _from_lines(path: Path) -> list[str]:
    lines = read_lines(path)
    found = [_NUMBERED.match(line) for _, line in lines]
    if not any(found):
        return [line for _, line in lines]
    numbered: dict[int, str] = {}
    for (number, line), match in zip(lines, found, strict=True):
        if match is None or int(match[1]) in numbered:
            raise DatasetFormatError(f"{path}:{number}: {quoted(line)} is not '<number> <class>'")
        numbered[int(match[1])] = match[2].strip()
    return in_order(path, numbered)


def _from_json(path: Path, content: Any) -> list[str]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if isinstance(content, dict):
        by_number = all(whole_number(key) is not None for key in content)
        pairs = [(key, name) if by_number else (name, key) for key, name in content.items()]
        numbered = {number: str(name) for key, name in pairs if (number := whole_number(str(key))) is not None}
        if len(numbered) == len(pairs):
            return in_order(path, numbered)
    raise DatasetFormatError(f"{path} is not a class list: give names, or a mapping of names to numbers")
