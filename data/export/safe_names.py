"""Names for other tools, without the spaces, semicolons and brackets at which many tools fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import PurePosixPath

from ..index.records import ListedClip

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class SafeName:
    """The name of a clip in exported files."""

    folder: str
    """The folder of its class."""
    stem: str
    """Unique in the data set, also without regard to case."""

    def __str__(self) -> str:
        return f"{self.folder}/{self.stem}"


def safe_names(clips: Iterable[ListedClip], class_names: Sequence[str]) -> dict[str, SafeName]:
    """Return the names of clips, by their ids: letters, digits, `.`, `-` and `_`.

    They depend on the ids alone, so lists and frames that are written at different times fit each other.
    """
    folders = safe_folders(class_names)
    taken: set[str] = set()
    return {
        clip.id: SafeName(folder=folders[clip.class_name], stem=_unique(PurePosixPath(clip.id).name, clip.id, taken))
        for clip in sorted(clips, key=lambda clip: clip.id)
    }


def safe_folders(class_names: Sequence[str]) -> dict[str, str]:
    """Return the folder of each class."""
    taken: set[str] = set()
    return {name: _unique(name, name, taken) for name in class_names}


def _unique(name: str, source: str, taken: set[str]) -> str:
    """Return `name` made safe, with a hash of `source` if that is taken, and add it to `taken`."""
    safe = _UNSAFE.sub("_", name).lstrip(".-") or "_"
    if safe.lower() in taken:
        safe = f"{safe}-{sha1(source.encode(), usedforsecurity=False).hexdigest()[:8]}"
    taken.add(safe.lower())
    return safe
