"""Finding files that look like lists of clips, so that none is ignored beside class folders."""

from __future__ import annotations

import re
from pathlib import Path

from ..index.label_maps import NAMES
from ..index.listing import folders_below, is_file, is_pipe_or_device, names_in, suffix_of
from .lists import looks_listed

_SUFFIXES = frozenset({"", ".txt", ".csv", ".tsv", ".lst", ".list", ".json"})
_SIDE_IN_NAME = re.compile(
    r"(?:.*[_-])?(?:train|val|valid|validation|test)(?:ing)?(?:[_-]?(?:list|split|set|videofolder|videos|rawframes))*[_-]?\d*",
    re.IGNORECASE,
)
_HEAD_BYTES = 1 << 14
_LEAST_SHARE = 0.5


def unread_lists(root: Path) -> list[Path]:
    """Return the files in `root`, and in its folders up to two deep, that look like lists of clips.

    A list names a side (`trainlist01.txt`, `val.csv`), or most of its lines name a video or an image.
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
    return bool(lines) and sum(map(looks_listed, lines)) > _LEAST_SHARE * len(lines)
