"""Lists of folders of frames with first and last frame, as IBM's action-recognition-pytorch reads them.

    train.txt, val.txt, test.txt                 path start end label [label ...]

Fields are separated by spaces (Something-Something, Moments in Time), tabs, commas or semicolons (Kinetics, because its
class folders contain spaces). Frames count from 1 and `end` is the last one; frames are called `00001.jpg`, flow
`00001_x.jpg` and `00001_y.jpg`. A test list may lack labels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.listing import Listing, exists, require_folder, safe_path, whole_number
from ..reading.listed_media import ListedPaths
from .lists import MEDIA_FOLDERS, PEEK_LINES, Entry, NamedList, find_lists, list_content, listing_of

NAME = re.compile(r"(?:mini_)?(?P<side>train|val|test)(?P<split>)\.txt", re.IGNORECASE)


def read_frame_lists(root: Path) -> Listing:
    """Return the clips that the lists below `root` name.

    Raises:
        DatasetNotFoundError: there is no list, or none of its folders exists.
        DatasetFormatError: a line of a list is not valid; the message names it.
    """
    require_folder(root)
    named = find_lists(root, NAME)
    if not named:
        raise DatasetNotFoundError(f"{root} has no train.txt of 'path start end label'; add it")
    return listing_of(root, {each: read_entries(each) for each in named}, frames=True)


def is_frame_lists(root: Path) -> bool:
    """Return whether there is a train list that may be in this layout, and its frames are not in a database only."""
    train = [named for named in find_lists(root, NAME) if named.side == "train"]
    if not train or claims(train[0].path) == "no":
        return False
    if not exists(train[0].path.with_suffix(".lmdb")):
        return True
    listed = ListedPaths(root, MEDIA_FOLDERS)
    return any(listed.find(entry.path) is not None for _, entry in read_entries(train[0])[:PEEK_LINES])


def claims(path: Path) -> Literal["no", "perhaps", "certainly"]:
    """Return whether a list has first and last frames rather than mmaction2's offsets and counts.

    Both have three numbers after the path. Here frames count from 1, and the last frame is not before the first.
    """
    if NAME.fullmatch(path.name) is None:
        return "no"
    columns, numbered = list_content(path)
    if columns is not None and not columns.are_first_last_label:
        return "no"
    lines = [line for _, line in numbered[:PEEK_LINES]]
    rows = [fields for line in lines if (fields := _fields_of(line)) is not None and len(fields[1]) >= 3]
    if not rows or len(rows) < len(lines) or any(not 1 <= start <= end for _, (start, end, *_) in rows):
        return "no"
    semicolons = all(";" in line for line in lines)
    several = any(len(numbers) > 3 for _, numbers in rows)
    from_first = all(numbers[0] == 1 for _, numbers in rows)
    return "certainly" if semicolons or several or from_first or columns is not None else "perhaps"


def _fields_of(line: str) -> tuple[str, tuple[int, ...]] | None:
    """Return the path and the numbers of a line, or None if it has another form."""
    mark = next((mark for mark in ";\t," if mark in line), None)
    path, *words = line.split(mark)
    numbers = [whole_number(word.strip()) for word in words]
    known = tuple(number for number in numbers if number is not None)
    return (path.strip('" '), known) if len(known) == len(words) else None


def read_entries(named: NamedList) -> list[tuple[int, Entry]]:
    entries = []
    columns, lines = list_content(named.path)
    if columns is not None and not columns.are_first_last_label:
        raise DatasetFormatError(f"{columns.where} does not name the columns path, start, end and label, in this order")
    for number, line in lines:
        where = f"{named.path}:{number}"
        read = _fields_of(line)
        if read is None or len(read[1]) < (2 if named.side == "test" else 3):
            raise DatasetFormatError(f"{where}: {quoted(line)} is not 'path start end label ...'")
        path, (start, end, *labels) = read
        if not 1 <= start <= end:
            raise DatasetFormatError(f"{where}: frames {start} to {end} are not a segment: the first frame is 1")
        entry = Entry(
            path=safe_path(path, where), labels=tuple(labels), start=start - 1, end=end, segment=f"@{start}-{end}"
        )
        entries.append((number, entry))
    return entries
