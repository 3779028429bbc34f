"""Finding the media that lists name, by their name anywhere or by their path in one of several folders."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..errors import DatasetFormatError, quoted
from ..index.listing import (
    DOUBTFUL_VIDEO_SUFFIXES,
    entries_of,
    find_folder,
    is_dir,
    is_file,
    is_folder,
    is_video_name,
    names_in,
    spelling,
    suffix_of,
)
from .media import Medium, kind_of, media_below

_SIDES = ("_train", "_val", "_test")
"""Endings of folders that hold one side of a data set."""


class MediaByName:
    """The media below a root by their names without folder and suffix."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._named: defaultdict[str, list[Medium]] = defaultdict(list)
        for medium in media_below(root):
            self._named[unicodedata.normalize("NFC", medium.stem)].append(medium)

    def find(self, stems: Sequence[str], *, folder: str = "") -> Medium | None:
        """Return the medium named by the first of `stems` that exists, or None.

        Args:
            folder: of several media of one name, the one in a folder of this name is returned, else the first.
        """
        for stem in stems:
            named = self._named.get(unicodedata.normalize("NFC", stem), [])
            # A file without bytes, left by a failed download, must not hide a good one.
            named = [medium for medium in named if not has_no_bytes(self._root / medium.path)] or named
            if named:
                named = [m for m in named if suffix_of(m.path) not in DOUBTFUL_VIDEO_SUFFIXES] or named
                wanted = folder.replace(" ", "_")
                inside = (m for m in named if PurePosixPath(m.path).parent.name.replace(" ", "_") == wanted)
                return next(inside, named[0])
        return None

    def containing(self, text: str) -> Medium | None:
        """Return a medium with `text` in its name, or None."""
        return next((media[0] for name, media in self._named.items() if text in name), None)


class ListedPaths:
    """Finds the media that lists name, when their paths may start in one of several folders."""

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        """Search the root itself, then `folders` below it, then its other folders."""
        self._root = root
        known = [name for name in folders if is_dir(root / name)]
        others = [entry.name for entry in entries_of(root) if entry.name not in known and is_folder(entry)]
        of_sides = [name for name in known if name.endswith(_SIDES)]
        self._first = ["", *(name for name in known if name not in of_sides)]
        self._equal = of_sides, [name for name in others if not name.startswith(".")]
        self._folders = [*self._first, *of_sides, *self._equal[1]]
        self._names: dict[str, frozenset[str]] = {}
        """Of the entries of each folder: a list names most of them, and looking for each in every folder takes long."""
        self._spelled: dict[tuple[str, str], tuple[str, dict[str, list[str]]]] = {}

    def find(self, listed: str) -> Medium | None:
        """Return the medium at the path `listed` in one of the folders, in either Unicode form, or None.

        Without one, case does not matter, and neither does the suffix of a video if one video has the name.

        Raises:
            DatasetFormatError: it is in two folders of which none takes precedence, such as those of two sides.
        """
        forms = dict.fromkeys((listed, *(unicodedata.normalize(form, listed) for form in ("NFC", "NFD"))))
        exact = next((found for form in forms if (found := self._at(form)) is not None), None)
        return exact or next((found for folder in self._folders if (found := self._like(folder, listed))), None)

    def _at(self, listed: str) -> Medium | None:
        first = next((found for folder in self._first if (found := self._in(folder, listed)) is not None), None)
        if first is not None:
            return first
        for folders in self._equal:
            there = [medium for folder in folders if (medium := self._in(folder, listed)) is not None]
            if len(there) > 1:
                raise DatasetFormatError(
                    f"{quoted(listed)} of a list is {there[0].path} and {there[1].path} in {self._root}: "
                    "write the whole path"
                )
            if there:
                return there[0]
        return None

    def _in(self, folder: str, listed: str) -> Medium | None:
        path = f"{folder}/{listed}" if folder else listed
        place, _, name = path.rpartition("/")
        if place not in self._names:
            self._names[place] = frozenset(names_in(self._root / place) if is_dir(self._root / place) else ())
        kind = kind_of(self._root / path) if name in self._names[place] else None
        return None if kind is None else Medium(path=path, kind=kind)

    def _like(self, folder: str, listed: str) -> Medium | None:
        """Return the medium in one of the folders that is spelled like `listed`, or None."""
        below, _, name = listed.rpartition("/")
        if (folder, below) not in self._spelled:
            self._spelled[folder, below] = self._names_like(folder, below)
        place, names = self._spelled[folder, below]
        stem = os.path.splitext(name)[0] if is_video_name(name) else name
        found = names.get(spelling(name)) or names.get(f"{spelling(stem)}.*", [])
        if len(found) != 1:
            return None
        kind = kind_of(self._root / place / found[0])
        return None if kind is None else Medium(path=f"{place}/{found[0]}".removeprefix("./"), kind=kind)

    def _names_like(self, folder: str, below: str) -> tuple[str, dict[str, list[str]]]:
        """Return the folder that is spelled like `below`, and the names in it by their spelling."""
        place = find_folder(self._root / folder, below)
        return ("", {}) if place is None else (place.relative_to(self._root).as_posix(), _by_spelling(place))


def has_no_bytes(path: Path) -> bool:
    return is_file(path) and path.stat().st_size == 0


def _by_spelling(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder by their spelling, and those of videos also without suffix, as `name.*`."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names_in(folder)):
        found[spelling(name)].append(name)
        if is_video_name(name) and suffix_of(name) not in DOUBTFUL_VIDEO_SUFFIXES:
            found[f"{spelling(os.path.splitext(name)[0])}.*"].append(name)
    return dict(found)
