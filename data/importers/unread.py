"""Finding files that look like lists of clips, so that none is ignored beside class folders."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
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
    is_dir,
    is_file,
    is_folder,
    is_pipe_or_device,
    read_json,
    suffix_of,
    text_of,
)
from ..reading.media import holds_frames
from .class_folders import read_class_folders, read_training_validation
from .lists import looks_listed

_TEXTS = frozenset({".txt", ".csv", ".tsv", ".lst", ".list", ".json", ".jsonl", ".yaml", ".yml", ".xml"})
_TABLES = frozenset({".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".mat"})
_PACKED = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip"})
_SUFFIXES = frozenset({"", *_TEXTS, *_TABLES, *_PACKED})
_SIDE_IN_NAME = re.compile(
    r"(?:.*[_-])?(?:train|val|valid|validation|test)(?:ing)?(?:[_-]?(?:list|split|set|videofolder|videos|rawframes))*[_-]?\d*",
    re.IGNORECASE,
)
_SPLIT_IN_NAME = re.compile(r"(?:.*[_-])?(?:splits?|folds?|partitions?)(?:[_-]?\d+)?", re.IGNORECASE)
_SIDES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_SIDE_KEYS = frozenset({"subset", "split", "set", "partition"})
_FOLD_KEY = "fold"
_BETWEEN = re.compile(r"[\s,;|:=\"'\[\]{}()<>]+")
_MOST_WORDS = 12
"""Words in a line that may name a clip among other columns; in more, a clip's name may be a word of a sentence."""
_LEAST_LETTERS = 3
"""Letters of a clip's name that counts anywhere in a line; a shorter one may be another column."""
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
_DEPTH = 4


def unread_lists(root: Path) -> list[Path]:
    """Return the files in `root`, and in its folders up to four deep, that look like lists of clips.

    A list names a side (`trainlist01.txt`, `val.csv`), even if it is empty, or most of its lines name a video, an image
    or a clip. A JSON file is one if it sorts clips by sides or folds (`_names_sides`), or if it is no JSON and may have
    been such a list. Tables of other programs and packed texts are judged by their names. A file beside a clip and of
    the clip's own name is no list.
    """
    clips = _Clips(root)
    return [
        path
        for folder, names in _names_below(root, _DEPTH)
        for name in _texts_in(folder, names)
        if _is_list(path := folder / name, clips)
    ]


def _names_below(folder: Path, depth: int) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those up to `depth` below it, each with the names of its entries, read once."""
    try:
        with os.scandir(folder) as found:
            entries = [(entry.name, is_folder(entry)) for entry in found]
    except PermissionError:
        return
    yield folder, [name for name, _ in entries]
    if depth:
        for name in sorted(name for name, is_inner in entries if is_inner and not name.startswith(".")):
            yield from _names_below(folder / name, depth - 1)


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

    def all_named(self, values: list[Any]) -> bool:
        """Return whether values are two names of clips or more, and nothing else; numbers may mean anything."""
        texts = [value for value in values if isinstance(value, str) and not value.isnumeric()]
        return len(texts) > 1 and len(texts) == len(values) and all(map(self._is_named, texts))

    def in_line(self, line: str) -> bool:
        """Return whether a line of a text has the name of a clip as one of its columns."""
        words = [word for word in _BETWEEN.split(line) if word]
        if len(words) > _MOST_WORDS:
            return False
        sided = any(word.lower() in _SIDES for word in words)
        return any(
            self._is_named(word.replace("\\", "/"))
            and ("/" in word or ((sided or not word.isnumeric()) and (not place or len(word) >= _LEAST_LETTERS)))
            for place, word in enumerate(words)
        )


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


def _texts_in(folder: Path, names: list[str]) -> list[str]:
    """Return those of the names in a folder that may be lists, in order."""
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
    suffix = suffix_of(path.name)
    if suffix in _TABLES or suffix in _PACKED:
        stem = Path(path.stem).stem if suffix in _PACKED else path.stem
        is_text = suffix in _TABLES or suffix_of(path.stem) in _TEXTS
        return is_text and any(pattern.fullmatch(stem) for pattern in (_SIDE_IN_NAME, _SPLIT_IN_NAME))
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except PermissionError:
        return True  # it may be one, and cannot be known to be none
    if _SIDE_IN_NAME.fullmatch(path.stem) and (suffix or head.strip()):
        return True
    lines = [line for line in text_of(head).splitlines() if line.strip()]
    if suffix == ".json":
        return bool(lines) and (_mostly(looks_listed, lines) or _is_json_list(path, clips))
    return _mostly(looks_listed, lines) or _mostly(clips.in_line, lines)


def _mostly(names_clip: Callable[[str], bool], lines: list[str]) -> bool:
    """Return whether most lines name a clip; the first may hold the names of columns."""
    return bool(lines) and sum(map(names_clip, lines)) > _LEAST_SHARE * max(1, len(lines) - 1)


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

    It has a side as a key, `{"train": ["a"], "test": {"b": 1}}`, or as a value, `{"a": "train"}`, entries that have a
    side or a fold, `[{"subset": "test"}]`, or names of clips alone, `{"fold1": ["a", "b"]}`. Settings and results of
    sides, such as `{"train": {"lr": 0.1}}`, name no clips, and neither do numbers of something with a share,
    `{"val": {"0": 0.9}}`, where clips are called `0`.
    """
    if isinstance(value, list):
        return any(_has_side(each) for each in value[:_MOST_NODES]) or clips.all_named(value[:_MOST_NODES])
    if not isinstance(value, dict):
        return False
    for key, content in value.items():
        if key.lower() in _SIDES and (_lists(content) or (isinstance(content, dict) and _sorts(content, clips))):
            return True
        if (_has_side(content) or _is_side(content)) and clips.named_in(key):
            return True
    return _has_side(value) and clips.named_in(value)


def _sorts(value: dict[str, Any], clips: _Clips) -> bool:
    """Return whether what a file says of a side names clips; it gives a number a share, and a clip a label."""
    shares = {key: each for key, each in value.items() if isinstance(each, float) and not each.is_integer()}
    if len(shares) == len(value) and all(key.isnumeric() for key in shares):
        return False
    return clips.named_in(value)


def _is_side(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in _SIDES


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
    return isinstance(value, dict) and (_FOLD_KEY in value or any(_is_side(value.get(key)) for key in _SIDE_KEYS))
