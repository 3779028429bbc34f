"""IBM's databases of clips: one for each side, each clip as one value (`reading.serialized`).

    train.lmdb, val.lmdb, test.lmdb              <video> to (number of frames, JPEG ..., label); `__keys__`, `__len__`
    train.txt, val.txt, test.txt                 the lists that they were made of: path start end label

The key of a clip is the last part of its path. Where the lists are still there, labels are taken from them and compared
with some of the database; their class folders name the classes, and clips without labels are known. Without a list, the
label of a clip without one is the number of its last frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..errors import DatasetFormatError, VideoError, quoted
from ..index.listing import Listing, is_file
from ..reading.serialized import read_label, read_names
from .frame_lists import read_entries
from .lists import Entry, NamedList, listing_of

_NAME = re.compile(r"(?:\w+_)?(train|val|test)", re.IGNORECASE)
_SIDES = {"train": "train", "val": "validation", "test": "test"}
_COMPARED = 50
"""Clips of a database whose labels are compared with those of its list."""


def read_clip_lmdbs(root: Path, databases: Sequence[Path]) -> Listing:
    """Return the clips of the databases of all sides.

    Raises:
        DatasetFormatError: a database is damaged or of no side, or its labels are not those of its list.
        DatasetError: pyarrow is not installed.
    """
    stored: dict[str, tuple[str, str]] = {}
    lists: dict[NamedList, list[tuple[int, Entry]]] = {}
    notes: list[str] = []
    for database in databases:
        found = _NAME.fullmatch(database.stem)
        if found is None:
            raise DatasetFormatError(f"{database} is of no side: call it train.lmdb, val.lmdb or test.lmdb")
        text = database.with_suffix(".txt")
        named = NamedList(path=text if is_file(text) else database, side=_SIDES[found[1].lower()], split=1)
        if any(named.side == other.side for other in lists):
            raise DatasetFormatError(f"{root} has two databases of {named.side}, one of them {database}: leave one")
        try:
            lists[named] = _listed(named, database) if is_file(text) else list(_keys(database, notes))
        except VideoError as error:
            raise DatasetFormatError(f"{error}; copy the database again") from None
        for _, entry in lists[named]:
            key = PurePosixPath(entry.path).name if is_file(text) else entry.path
            stored[entry.path] = database.relative_to(root).as_posix(), key
    listing = listing_of(root, lists, frames=True, stored=stored)
    return replace(listing, notes=(*listing.notes, *notes))


def _listed(named: NamedList, database: Path) -> list[tuple[int, Entry]]:
    """Return the entries of the list of a database.

    Raises:
        DatasetFormatError: two of them have one key, or the database has another label for one.
    """
    entries = read_entries(named)
    keys: dict[str, int] = {}
    for number, entry in entries:
        other = keys.setdefault(PurePosixPath(entry.path).name, number)
        if other != number:
            raise DatasetFormatError(
                f"{named.path}:{number}: {quoted(entry.path)} ends as the path in line {other}: {database} holds one "
                "of the two only"
            )
    for number, entry in entries[:: max(1, len(entries) // _COMPARED)]:
        try:
            _, label = read_label(database, PurePosixPath(entry.path).name)
        except VideoError:  # decoding will report that
            continue
        if entry.labels and label != entry.labels[-1]:
            raise DatasetFormatError(
                f"{named.path}:{number}: {quoted(entry.path)} has label {entry.labels[-1]} here and {label} in "
                f"{database}: put the list there that it was made of, or remove this one"
            )
    # Segments were cut when the database was written.
    return [(number, replace(entry, start=0, end=None, segment="")) for number, entry in entries]


def _keys(database: Path, notes: list[str]) -> Iterator[tuple[int, Entry]]:
    """Yield (place, entry) of the keys of a database without a list, and note those without a label."""
    found: list[tuple[int, str, int, int]] = []
    left_out: list[str] = []
    for place, name in enumerate(read_names(database), start=1):
        try:
            found.append((place, name, *read_label(database, name)))
        except VideoError as error:
            left_out.append(str(error))
    if left_out:
        notes.append(
            f"{len(left_out)} clips of {database} have no label without a list and are left out: {left_out[0]}"
        )
    unlabelled = all(n_frames == label for _, _, n_frames, label in found)
    for place, name, _, label in found:
        yield place, Entry(path=name, labels=() if unlabelled else (label,))
