"""Reading class lists, which give the classes their numbers.

1 ApplyEyeMakeup                             numbered, from 0 or 1 (classInd.txt); also `1. ` or `1, `
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
    "classes.csv",
    "class_names.txt",
    "labels.txt",
    "labels.json",
    "categories.txt",
    "category.txt",
)
_LABEL_MAP = re.compile(r"(?:.*[_-])?(?:label_?map.*\.txt|labels\.json)|kinetics[_-]?\d+[_-]labels\.csv", re.IGNORECASE)
_NUMBERED = re.compile(r"^([0-9]{1,9})(?:[.:)]?\s|[,;]\s*)\s*(\S.*)$")
_COLUMN_NAMES = re.compile(
    r"(?:id|idx|index|number|label|label_id|class_id|class)\s*[,;\t ]\s*"
    r"(?:class_?name|label_?name|name|label|class|category)",
    re.IGNORECASE,
)
_FOLDERS = ("", "annotations")


def find_class_list(root: Path, folders: Sequence[str] = _FOLDERS) -> Path | None:
    """Return the class list in one of `folders` below `root`, or None.

    Raises:
        DatasetFormatError: there are several label maps, or two lists of the same classes in another order.
    """
    for name in folders:
        folder = find_folder(root, name)
        if folder is None:
            continue
        found = (find_case_insensitive(folder, spelling) for spelling in NAMES)
        lists = [path for path in found if path is not None and is_file(path)]
        if lists:
            _require_one_order(lists)
            return lists[0]
        named = (folder / name for name in names_in(folder) if _LABEL_MAP.fullmatch(name))
        maps = sorted(path for path in named if is_file(path))
        if len(maps) > 1:
            names = " and ".join(entry.name for entry in maps)
            raise DatasetFormatError(f"{folder} has several label maps, {names}; leave the one that the lists use")
        if maps:
            return maps[0]
    return None


def _require_one_order(lists: Sequence[Path]) -> None:
    """Check that of several class lists, which may be of other things, no two number the same classes differently."""
    read: dict[frozenset[str], tuple[Path, tuple[str, ...]]] = {}
    for path in lists if len(lists) > 1 else ():
        try:
            names = read_class_list(path)
        except DatasetFormatError:
            continue
        other, order = read.setdefault(frozenset(names), (path, names))
        if order != names:
            raise DatasetFormatError(
                f"{other} and {path.name} number the same classes differently: leave the one that the labels follow"
            )


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
    found = [_NUMBERED.match(line) for _, line in _lines(path)]
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
    lines = _lines(path)
    found = [_NUMBERED.match(line) for _, line in lines]
    if not any(found):
        return [line for _, line in lines]
    numbered: dict[int, str] = {}
    for (number, line), match in zip(lines, found, strict=True):
        if match is None or int(match[1]) in numbered:
            raise DatasetFormatError(f"{path}:{number}: {quoted(line)} is not '<number> <class>'")
        numbered[int(match[1])] = match[2].strip('" ')
    return in_order(path, numbered)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return (number, text) of the lines of a class list, without a first one that names the columns."""
    lines = read_lines(path)
    return lines[1:] if lines and _COLUMN_NAMES.fullmatch(lines[0][1]) else lines


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
