"""Reading text lists with numeric labels, for the importers of `path_lists` and `frame_lists`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.groups import source_group
from ..index.label_maps import find_class_list, first_number, read_class_list
from ..index.listing import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Listing,
    exists,
    matching_files,
    official_sides,
    read_lines,
    spelling,
)
from ..index.records import Kind, ListedClip, Subset
from ..reading.listed_media import ListedPaths
from ..reading.media import FrameNames, frame_names
from .list_columns import COLUMNS, LEAST_KNOWN, Columns

MAX_UNNAMED_CLASSES = 10_000
"""Most classes accepted without names; a higher label is taken for an error."""
PEEK_LINES = 200
"""Lines of a list that are read to recognise it."""
LIST_FOLDERS = ("", "annotations", "lists", "splits")
MEDIA_FOLDERS = (
    *("videos", "videos_train", "videos_val", "videos_test"),
    *("rawframes", "rawframes_train", "rawframes_val", "rawframes_test", "frames", "images"),
)
_COMMENT = re.compile(r"(?:#|//)(?:\s|$)|#(?!\S*\.\w)")
_WORDS = re.compile(r"[,;\s]+")
MEDIA_SUFFIXES = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES))
"""A regular expression of all suffixes."""
_MEDIUM = re.compile(rf'\.(?:{MEDIA_SUFFIXES})(?=["\s,;]|$)', re.IGNORECASE)
_SIDES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedList:
    """A list file, with the side and split in its name."""

    path: Path
    side: str
    """`train`, `validation` or `test`."""
    split: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of a list."""

    path: str
    labels: tuple[int, ...]
    """From 0; empty on a test list without labels."""
    start: int = 0
    """First frame, from 0."""
    end: int | None = None
    """One past the last frame; None for all frames."""
    segment: str = ""
    """Suffix of the id that distinguishes the segments of one path."""

    def counted_from(self, first: int) -> Entry:
        """Return the entry with labels from 0, where `first` is the number of the first class."""
        return replace(self, labels=tuple(label - first for label in self.labels))


def find_lists(root: Path, pattern: re.Pattern[str]) -> list[NamedList]:
    """Return the lists with names that match `pattern` (groups `side` and `split`), of the first folder that has any.

    Raises:
        DatasetFormatError: two lists are the same side of one split.
    """
    found: dict[tuple[int, str], Path] = {}
    for match, path in matching_files(root, LIST_FOLDERS, pattern):
        key = int(match["split"] or 1), _SIDES[match["side"].lower()]
        if key in found:
            raise DatasetFormatError(
                f"{path.parent} has two {key[1]} lists, {found[key].name} and {path.name}; leave one"
            )
        found[key] = path
    return [NamedList(path=path, side=side, split=split) for (split, side), path in sorted(found.items())]


def list_lines(path: Path) -> list[tuple[int, str]]:
    """Return (line number, text) of the lines of a list, without comments and without a line of column names."""
    return list_content(path)[1]


def list_content(path: Path) -> tuple[Columns | None, list[tuple[int, str]]]:
    """Return the columns of a list, if its first line names them, and (line number, text) of its other lines."""
    lines = [(number, line) for number, line in read_lines(path) if not _COMMENT.match(line)]
    if lines and is_header(lines[0][1]):
        return Columns.of(lines[0][1], f"{path}:{lines[0][0]}"), lines[1:]
    return None, lines


def is_header(line: str) -> bool:
    """Return whether a line names columns: at least two names are known, and none is a number or a file."""
    words = [word.strip('"').lower() for word in _WORDS.split(line.strip())]
    if any(word.isnumeric() for word in words) or looks_listed(line):
        return False
    return sum(word in COLUMNS for word in words) >= LEAST_KNOWN


def looks_listed(line: str) -> bool:
    """Return whether a line of text names a video, an image or a class folder's file, as lists do."""
    return _MEDIUM.search(line) is not None


def listing_of(
    root: Path,
    lists: Mapping[NamedList, Sequence[tuple[int, Entry]]],
    *,
    frames: bool,
    class_names: tuple[str, ...] = (),
    stored: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> Listing:
    """Return the listing of the entries of lists, given as (line number, entry) of every line.

    Args:
        frames: whether a missing path counts as a folder of frames.
        class_names: names of the labels, where the lists themselves hold them.
        stored: the database below `root`, and the key in it, of the paths that are in databases.

    Raises:
        DatasetNotFoundError: none of the listed paths exists.
        DatasetFormatError: the lists contradict each other, or have no train side.
    """
    first, remarks = (0, ()) if class_names else _first_label(root, (e for lines in lists.values() for _, e in lines))
    lists = {named: [(number, entry.counted_from(first)) for number, entry in lines] for named, lines in lists.items()}
    _require_one_numbering(lists)
    entries = {named: [entry for _, entry in lines] for named, lines in lists.items()}
    sides, notes = _official(entries)
    names = class_names or _class_names(root, [entry for named in sides for entry in entries[named]], first)
    builder = _Builder(root=root, class_names=names, frames=frames, stored=stored)
    for named, side in sides.items():
        for number, entry in lists[named]:
            if entry.labels:
                builder.add(entry, split=named.split, side=side, where=f"{named.path}:{number}")
    return builder.listing((*notes, *remarks))


@dataclass(kw_only=True)
class _Builder:
    """Makes the clips of a listing out of the entries of its lists."""

    root: Path
    class_names: Sequence[str]
    frames: bool
    """Whether a missing path counts as a folder of frames."""
    stored: Mapping[str, tuple[str, str]]
    """The database and key of the paths that are in databases."""
    _found: ListedPaths = field(init=False)
    _names: dict[str, FrameNames] = field(init=False, default_factory=dict)
    _clips: dict[str, tuple[Entry, str, dict[int, tuple[Subset, str]]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._found = ListedPaths(self.root, MEDIA_FOLDERS)

    def add(self, entry: Entry, *, split: int, side: Subset, where: str) -> None:
        """Add the entry of a line.

        Raises:
            DatasetFormatError: it contradicts another line.
        """
        id_ = _without_suffix(entry.path) + entry.segment
        known, line, sides = self._clips.setdefault(id_, (entry, where, {}))
        if known.path != entry.path:
            raise DatasetFormatError(
                f"{where}: {quoted(entry.path)} and {quoted(known.path)} of {line} differ in their suffix only: "
                "rename one of them, or leave one out"
            )
        if known != entry:
            raise DatasetFormatError(
                f"{where}: {quoted(id_)} is listed with other labels or frames in {line}; make them agree"
            )
        before, first_line = sides.setdefault(split, (side, where))
        if before != side:
            raise DatasetFormatError(
                f"{where}: {quoted(id_)} is on two sides of split {split}, also in {first_line}; leave it on one"
            )

    def listing(self, notes: Iterable[str]) -> Listing:
        """Return the listing of all entries added.

        Raises:
            DatasetNotFoundError: none of their paths exists.
        """
        clips = [
            self._clip(id_, entry, {split: side for split, (side, _) in sides.items()})
            for id_, (entry, _, sides) in self._clips.items()
        ]
        if clips and not any(exists(self.root / clip.path) for clip in clips):
            tried = ", ".join(f"{name}/" for name in MEDIA_FOLDERS)
            raise DatasetNotFoundError(f"{self.root} has no {clips[0].path}, nor any other listed path; tried {tried}")
        return Listing(class_names=tuple(self.class_names), clips=tuple(clips), notes=tuple(notes))

    def _clip(self, id_: str, entry: Entry, sides: dict[int, Subset]) -> ListedClip:
        path, member = self.stored.get(entry.path, (entry.path, ""))
        medium = None if member else self._found.find(entry.path)
        kind: Kind = "lmdb" if member else "frames" if self.frames else "video"
        if medium is not None:
            path, kind = medium.path, medium.kind
        names, flow = FrameNames(), None
        if kind == "frames":
            names = self._frame_names(path, there=medium is not None)
            flow = names.flow_files(path)
        class_name = self.class_names[entry.labels[0]]
        return ListedClip(
            id=id_,
            path=path,
            kind=kind,
            frame_name=names.frame,
            flow=flow,
            start=entry.start,
            end=entry.end,
            label=entry.labels[0],
            other_labels=entry.labels[1:],
            class_name=class_name,
            group=source_group(class_name, PurePosixPath(_without_suffix(entry.path)).name)
            or (_without_suffix(entry.path) if entry.segment else id_),
            official=tuple(sorted(sides.items())),
            member=member,
        )

    def _frame_names(self, path: str, *, there: bool) -> FrameNames:
        """Return the names in a folder, read once for all its segments; those of the first folder for a missing one."""
        if there and path not in self._names:
            self._names[path] = frame_names(self.root / path)
        return self._names.get(path) or next(iter(self._names.values()), FrameNames())


def _require_one_numbering(lists: Mapping[NamedList, Sequence[tuple[int, Entry]]]) -> None:
    """Check that no two lists number the class folders of their paths differently, such as one from 0 and one from 1.

    Raises:
        DatasetFormatError: in each of two lists, folders and labels are in one-to-one relation, but not in the same.
    """
    known: dict[str, tuple[int, str]] = {}
    for named, lines in lists.items():
        of_list: dict[str, tuple[int, str]] = {}
        pairs = set()
        for number, entry in lines:
            if len(entry.labels) == 1:
                folder = PurePosixPath(entry.path).parent.as_posix()
                pairs.add((folder, entry.labels[0]))
                of_list.setdefault(folder, (entry.labels[0], f"{named.path}:{number}"))
        if len(of_list) < 2 or len({label for label, _ in of_list.values()}) < len(pairs):
            continue
        for folder, (label, where) in of_list.items():
            other, before = known.setdefault(folder, (label, where))
            if other != label:
                raise DatasetFormatError(
                    f"{where}: the clips of {quoted(folder)} have label {label} here and {other} in {before}: "
                    "number the classes the same in all lists"
                )


def _first_label(root: Path, entries: Iterable[Entry]) -> tuple[int, tuple[str, ...]]:
    """Return 1 if the labels of all lists count from 1, else 0, and a note on it.

    Where a class list has the names of the paths' folders, these decide. Else they do if none is 0 and the highest is
    the number of classes, or the class list itself numbers from 1.

    Raises:
        DatasetFormatError: labels and folders do not agree.
    """
    entries = tuple(entries)
    used = {label for entry in entries for label in entry.labels}
    if not used or 0 in used:
        return 0, ()
    class_list = find_class_list(root, LIST_FOLDERS)
    if class_list is None:
        counts = len(used) > 1 and used == set(range(1, len(used) + 1))
    else:
        names = read_class_list(class_list)
        by_folder = _first_by_folders(class_list, names, entries)
        counts = by_folder == 1
        if by_folder is None:
            counts = max(used) == len(names) or first_number(class_list) == 1
    return (1, ("labels of the lists count from 1",)) if counts else (0, ())


def _first_by_folders(class_list: Path, names: Sequence[str], entries: Iterable[Entry]) -> int | None:
    """Return the number of the first class by which labels and class folders agree; None without class folders.

    Raises:
        DatasetFormatError: they agree neither from 0 nor from 1.
    """
    numbers = {_folder_spelling(name): number for number, name in enumerate(names)}
    first_classes: dict[int, Entry] = {}
    for entry in entries:
        number = numbers.get(_folder_spelling(PurePosixPath(entry.path).parent.name))
        if number is not None and len(entry.labels) == 1:  # of several, the folder may be any
            first_classes.setdefault(entry.labels[0] - number, entry)
    if not first_classes:
        return None
    if len(first_classes) > 1 or not {0, 1} >= set(first_classes):
        strange = next((first for first in first_classes if first not in {0, 1}), max(first_classes))
        entry = first_classes[strange]
        raise DatasetFormatError(
            f"{quoted(entry.path)} has label {entry.labels[0]}, which is not that of its folder in {class_list}, "
            "whether labels count from 0 or from 1: make them agree"
        )
    return next(iter(first_classes))


def _folder_spelling(name: str) -> str:
    return spelling(name).replace("_", " ")


def _class_names(root: Path, entries: Sequence[Entry], first: int) -> tuple[str, ...]:
    """Return the names of the labels: from a class list, else from the class folders of the paths, else the numbers.

    Folders name the classes if each label has exactly one folder and each folder exactly one label.

    Raises:
        DatasetFormatError: a label is higher than the class list allows.
    """
    folders: dict[int, set[str]] = {}
    for entry in entries:
        for label in entry.labels:
            folders.setdefault(label, set())
        if entry.labels:
            folders[entry.labels[0]].add(PurePosixPath(entry.path).parent.name)
    count = max(folders, default=-1) + 1
    class_list = find_class_list(root, LIST_FOLDERS)
    if class_list is not None:
        names = read_class_list(class_list)
        if count > len(names):
            raise DatasetFormatError(
                f"label {count - 1 + first} is listed, but {class_list} names {len(names)} classes from {first}"
            )
        return names
    if count > MAX_UNNAMED_CLASSES:
        raise DatasetFormatError(f"label {count - 1} is listed in {root}, and nothing names it; add label_map.txt")
    return _folder_names(folders) or tuple(str(label + first) for label in range(count))


def _official(lists: Mapping[NamedList, Sequence[Entry]]) -> tuple[dict[NamedList, Subset], tuple[str, ...]]:
    """Return the side of every list that has labels, and notes for the user; see `listing.official_sides`."""
    sides: dict[NamedList, Subset] = {}
    notes: dict[str, None] = {}
    for split in sorted({named.split for named in lists}):
        of_split = [named for named in lists if named.split == split]
        labelled = [named for named in of_split if any(entry.labels for entry in lists[named])]
        by_name, remarks = official_sides({named.side for named in labelled})
        sides.update({named: by_name[named.side] for named in labelled})
        unlabelled = sum(not entry.labels for named in of_split for entry in lists[named])
        if unlabelled:
            remarks += (f"{unlabelled} listed clips have no label and are left out",)
        notes.update(dict.fromkeys(remarks))
    return sides, tuple(notes)


def _folder_names(folders: Mapping[int, set[str]]) -> tuple[str, ...]:
    if sorted(folders) != list(range(len(folders))) or any(len(names) != 1 for names in folders.values()):
        return ()
    names = tuple(next(iter(folders[label])) for label in range(len(folders)))
    return names if all(names) and len({name.lower() for name in names}) == len(names) else ()


def _without_suffix(path: str) -> str:
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES else path
