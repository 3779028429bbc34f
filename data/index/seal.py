"""The seal of test lists: which list it is, and the local record of every opening."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import CacheError
from .records import ListedClip

_DIGITS: Final = 32


def digest_of_test_list(clips: Iterable[ListedClip], split: int) -> str:
    """Return the identity of the test list of a split: the same wherever the videos lie, whatever is in other lists."""
    listed = sorted((clip.id, clip.class_name) for clip in clips if clip.subset(split) == "test")
    text = json.dumps([split, listed], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


class SealLog:
    """The openings of test lists whose videos were prepared in one cache, as a file of JSON lines.

    A line is an opening, or later the `score` that it found, under the `id` of the opening. Lines of releases up to
    0.2.0 have no `id` and no `test_list`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            CacheError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(entry)) + "\n")
        except OSError as error:
            raise CacheError(f"opening the test list cannot be recorded: {error}") from error

    def openings(self, *, test_list: str, version: str, split: int, clips: int | None = None) -> list[dict[str, Any]]:
        """Return the openings of a test list, the oldest first, each with the `score` that it found.

        Those of earlier releases, which do not name the list, are known by the data set's version and the split. Of
        another version they are told with `perhaps: true` where they opened as many clips as this list has.
        """
        found: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(self._lines()):
            key = str(line.get("id", number))
            named = line.get("test_list")
            is_same = line.get("version") == version if named is None else named == test_list
            is_similar = named is None and clips is not None and line.get("clips") == clips
            if key in found:
                found[key] |= line
            elif line.get("split") == split and (is_same or is_similar):
                found[key] = line if is_same else {**line, "perhaps": True}
        return list(found.values())

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise CacheError(f"the record of openings of test lists cannot be read: {error}") from error
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a process was killed while it wrote this line
            if isinstance(entry, dict):
                yield entry
