"""Finding files that look like lists of clips, so that none is ignored beside class folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import DatasetError, DatasetFormatError
from ..index.label_maps import NAMES
from ..index.listing import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    folders_below,
    is_dir,
    is_file,
    is_pipe_or_device,
    names_in,
    read_json,
    suffix_of,
)
from ..reading.media import holds_frames
from .class_folders import read_class_folders, read_training_validation
from .lists import looks_listed

_SUFFIXES = frozenset({"", ".txt", ".csv", ".tsv", ".lst", ".list", ".json", ".jsonl"})
_SIDE_IN_NAME = re.compile(
    r"(?:.*[_-])?(?:train|val|valid|validation|test)(?:ing)?(?:[_-]?(?:list|split|set|videofolder|videos|rawframes))*[_-]?\d*",
    re.IGNORECASE,
)
_SIDES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_SIDE_KEYS = frozenset({"subset", "split", "set"})
_LIST_NAME = re.compile(
    r"annot\d+|activity_?net(?:[._-]?v?\d[\w.-]*)?|(?:ucf101|hmdb51|kinetics)[_-]?\d+", re.IGNORECASE
)
"""Names of the JSON lists of known layouts, whatever is in them."""
_SIDE_WITH_LIST = re.compile(rf'"(?:{"|".join(sorted(_SIDES))})"\s*:\s*\[\s*["{{]', re.IGNORECASE)
_HEAD_BYTES = 1 << 14
_MOST_JSON_BYTES = 1 << 27
_MOST_NODES = 10_000
"""Values of a JSON file that are looked at: a list names a side in its first entries."""
_LEAST_SHARE = 0.5


def unread_lists(root: Path) -> list[Path]:
    """Return the files in `root`, and in its folders up to two deep, that look like lists of clips.

    A list names a side (`trainlist01.txt`, `val.csv`), or most of its lines name a video or an image. A JSON file is
    one if it sorts clips by sides (`_names_sides`), or if it is no JSON and may have been such a list. A file beside a
    clip and of the clip's own name is no list.
    """
    folders = [root, *folders_below(root, depth=2)]
    clips = _Clips(root)
    return [path for folder in folders for name in _texts_in(folder) if _is_list(path := folder / name, clips)]


@dataclass
class _Clips:
    """The clips in the class folders of a data set, which are looked for when they are needed."""

    root: Path

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all clips, without their class and suffix."""
        for read in (read_training_validation, read_class_folders):
            try:
                return frozenset(clip.id.rpartition("/")[2] for clip in read(self.root).clips)
            except DatasetError:
                continue
        return frozenset()

    def named_in(self, value: Any) -> bool:
        """Return whether a text in a value of JSON, or a key, has the suffix of a medium or the name of a clip."""
        return any(self._is_named(text) for text in _texts(value))

    def _is_named(self, text: str) -> bool:
        return looks_listed(text) or text.rpartition("/")[2] in self.names


def _texts(value: Any) -> Iterator[str]:
    """Yield the keys and texts in a value of JSON; of a large one, those of its first entries."""
    for each in islice(_values(value), _MOST_NODES):
        if isinstance(each, dict):
            yield from each
        elif isinstance(each, str):
            yield each


def _values(value: Any) -> Iterator[Any]:
    """Yield a value of JSON and all that are in it."""
    todo = [value]
    while todo:
        value = todo.pop()
        yield value
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _texts_in(folder: Path) -> list[str]:
    """Return the names of what may be lists, in order; none of a folder that may not be read."""
    names = names_in(folder)
    found = sorted(
        name for name in names if suffix_of(name) in _SUFFIXES and not name.startswith(".") and name not in NAMES
    )
    if not any(map(suffix_of, found)):
        return found
    beside = set(names)
    media = {os.path.splitext(name)[0] for name in names if suffix_of(name) in VIDEO_SUFFIXES | IMAGE_SUFFIXES}

    def is_of_clip(name: str) -> bool:
        """Return whether the name is a clip's beside it: `a.json` or `a.info.json` of `a.mp4`, or of the frames `a`."""
        stem = os.path.splitext(name)[0].removesuffix(".info")
        return stem in media or (stem in beside and is_dir(folder / stem) and holds_frames(folder / stem))

    return [name for name in found if not suffix_of(name) or not is_of_clip(name)]


def _is_list(path: Path, clips: _Clips) -> bool:
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
    return bool(lines) and suffix_of(path.name) == ".json" and _is_json_list(path, clips)


def _is_json_list(path: Path, clips: _Clips) -> bool:
    if _LIST_NAME.fullmatch(path.stem) or path.stat().st_size > _MOST_JSON_BYTES:
        return True
    try:
        content = read_json(path)
    except DatasetFormatError:
        text = path.read_bytes().decode("utf-8", "replace")
        named = "annot" in path.stem.lower() or any(map(looks_listed, text.splitlines()))
        return named or _SIDE_WITH_LIST.search(text) is not None
    return any(_names_sides(each, clips) for each in islice(_values(content), _MOST_NODES))


def _names_sides(value: Any, clips: _Clips) -> bool:
    """Return whether a value sorts clips by sides.

    It has a side as a key, `{"train": ["a"], "test": {"b": 1}}`, or entries that have a side, `[{"subset": "test"}]`.
    Settings and results of sides, such as `{"train": {"lr": 0.1}}`, name no clips.
    """
    if isinstance(value, list):
        return any(_has_side(each) for each in value[:_MOST_NODES])
    if not isinstance(value, dict):
        return False
    for key, content in value.items():
        if key.lower() in _SIDES and (_lists(content) or (isinstance(content, dict) and clips.named_in(content))):
            return True
        if _has_side(content) and clips.named_in(key):
            return True
    return _has_side(value) and clips.named_in(value)


def _lists(value: Any) -> bool:
    """Return whether a value may list clips: texts, or objects with texts; the numbers of epochs are no clips."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, str) or (isinstance(each, dict) and _holds_text(each)) for each in value)
    )


def _holds_text(value: dict[str, Any]) -> bool:
    return any(isinstance(each, str) for each in islice(_values(value), _MOST_NODES))


def _has_side(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(value.get(key), str) and value[key].lower() in _SIDES for key in _SIDE_KEYS
    )
