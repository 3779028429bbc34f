"""What importers give and need: the clips that a data set's lists name, and its files on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import DatasetFormatError
from .index import ListedClip

VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The clips of a data set before any video is opened."""

    class_names: tuple[str, ...]
    """Position is the label."""
    clips: tuple[ListedClip, ...]
    notes: tuple[str, ...] = ()
    """Remarks for people, e.g. videos that no list names."""


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return (line number from 1, text without surrounding space) of every line with content.

    Raises:
        DatasetFormatError: the file is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetFormatError(f"{path} is not UTF-8 text ({error}); replace the list") from None
    numbered = enumerate((line.strip() for line in text.splitlines()), start=1)
    return [(number, line) for number, line in numbered if line]


def find_case_insensitive(folder: Path, name: str) -> Path | None:
    """Return the entry of `folder` that is called `name` but for upper and lower case, or None."""
    if not folder.is_dir():
        return None
    exact = folder / name
    names = os.listdir(folder)
    if name in names:
        return exact
    matches = sorted(entry for entry in names if entry.lower() == name.lower())
    return folder / matches[0] if matches else None


class FileTree:
    """The files one and two levels below a folder, found by name whatever their case."""

    def __init__(self, folder: Path) -> None:
        self._spelled: dict[str, str] = {}
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir():
                for file in sorted(os.listdir(entry.path)):
                    relative = f"{entry.name}/{file}"
                    self._spelled.setdefault(relative.lower(), relative)
        self._exact = frozenset(self._spelled.values())

    def find(self, relative: str) -> str | None:
        """Return the path below the folder as it is spelled on disk, or None."""
        if relative in self._exact:
            return relative
        return self._spelled.get(relative.lower())

    def videos(self) -> frozenset[str]:
        """Return the paths of all files whose suffix is a video's."""
        return frozenset(path for path in self._exact if Path(path).suffix.lower() in VIDEO_SUFFIXES)
