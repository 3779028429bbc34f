"""Finding files that look like lists of clips, so that none is ignored beside class folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import DatasetFormatError
from ..index.label_maps import NAMES
from ..index.listing import folders_below, is_file, is_pipe_or_device, names_in, read_json, suffix_of
from .lists import looks_listed

_SUFFIXES = frozenset({"", ".txt", ".csv", ".tsv", ".lst", ".list", ".json", ".jsonl"})
_SIDE_IN_NAME = re.compile(
    r"(?:.*[_-])?(?:train|val|valid|validation|test)(?:ing)?(?:[_-]?(?:list|split|set|videofolder|videos|rawframes))*[_-]?\d*",
    re.IGNORECASE,
)
_SIDES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_SIDE_KEYS = frozenset({"subset", "split", "set"})
_HEAD_BYTES = 1 << 14
_MOST_JSON_BYTES = 1 << 27
_MOST_NODES = 10_000
"""Values of a JSON file that are looked at: a list names a side in its first entries."""
_LEAST_SHARE = 0.5


def unread_lists(root: Path) -> list[Path]:
    """Return the files in `root`, and in its folders up to two deep, that look like lists of clips.

    A list names a side (`trainlist01.txt`, `val.csv`), or most of its lines name a video or an image. In a JSON file, a
    key or the value of a `subset` names a side. One that is no JSON may be a list.
    """
    folders = [root, *folders_below(root, depth=2)]
    return [path for folder in folders for name in _texts_in(folder) if _is_list(path := folder / name)]


def _texts_in(folder: Path) -> list[str]:
    """Return the names of what may be lists, in order; none of a folder that may not be read."""
    return sorted(
        name
        for name in names_in(folder)
        if suffix_of(name) in _SUFFIXES and not name.startswith(".") and name not in NAMES
    )


def _is_list(path: Path) -> bool:
    if not is_file(path) or is_pipe_or_device(path):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except PermissionError:
        return True  # it may be one, and cannot be known to be none
    if _SIDE_IN_NAME.fullmatch(path.stem) and head.strip():
        return True
    lines = [line for line in head.decode("utf-8", "replace").splitlines() if line.strip()]
    # The first line may hold the names of columns.
    if lines and sum(map(looks_listed, lines)) > _LEAST_SHARE * max(1, len(lines) - 1):
        return True
    return bool(lines) and suffix_of(path.name) == ".json" and _may_be_list(path)


def _may_be_list(path: Path) -> bool:
    """Return whether a JSON file names sides, or cannot be read as JSON."""
    if path.stat().st_size > _MOST_JSON_BYTES:
        return True
    try:
        todo: list[Any] = [read_json(path)]
    except DatasetFormatError:
        return True
    for _ in range(_MOST_NODES):
        if not todo:
            return False
        value = todo.pop()
        if isinstance(value, dict):
            if any(key.lower() in _SIDES and isinstance(clips, list | dict) and clips for key, clips in value.items()):
                return True
            if any(key in _SIDE_KEYS and str(side).lower() in _SIDES for key, side in value.items()):
                return True
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return False
