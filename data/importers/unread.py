"""Finding files that look like lists of clips, so that none is ignored beside class folders."""

from __future__ import annotations

import re
from pathlib import Path

from ..index.label_maps import NAMES
from ..index.listing import entries_of, folders_below, is_pipe_or_device
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
    return [path for folder in folders for entry in entries_of(folder) if _is_list(path := Path(entry.path))]


def _is_list(path: Path) -> bool:
    if path.suffix.lower() not in _SUFFIXES or path.name.startswith(".") or path.name in NAMES:
        return False
    if not path.is_file() or is_pipe_or_device(path):
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if _SIDE_IN_NAME.fullmatch(path.stem) and head.strip():
        return True
    lines = [line for line in head.decode("utf-8", "replace").splitlines() if line.strip()]
    return bool(lines) and sum(map(looks_listed, lines)) > _LEAST_SHARE * len(lines)
