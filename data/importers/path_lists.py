"""Lists of paths and labels, as mmaction2, PySlowFast and many others write them.

    Archery/v_Archery_g01_c01.avi 2              path and label: a video, an image or a folder of frames
    Archery/v_Archery_g01_c01.avi,Archery        the same with the name of the class
    Archery/v_Archery_g01_c01 130 2              path, number of frames, label: a folder of frames
    Archery/v_Archery_g01_c01 20 130 2           path, frames before the first, number of frames, label

Lists are called `train.txt`, `kinetics400_val_list_videos.txt`, `ucf101_train_split_2_rawframes.txt`,
`trainlist01.csv` and the like, and are in the root, `annotations/`, `lists/` or `splits/`. Columns are separated
by spaces, tabs, commas or semicolons; lines that begin with `# ` and names of columns are skipped. Labels count
from 0, or from 1 if the lists show it. Where the first line names the columns (`label,path,num_frames`), each is read
by its name, whatever their order; columns of other names are ignored. Paths start at the root or at one of the folders
that mmaction2 uses (`videos/`, `videos_train/`, `rawframes/`, ...). A number of frames without an offset is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..errors import DatasetFormatError, DatasetNotFoundError, VideoError, quoted
from ..index.label_maps import find_class_list, read_class_list
from ..index.listing import (
    Listing,
    is_video_name,
    require_folder,
    safe_path,
    whole_number,
)
from ..reading.listed_media import ListedPaths
from . import frame_lists
from .list_columns import Columns
from .lists import (
    LIST_FOLDERS,
    MEDIA_FOLDERS,
    MEDIA_SUFFIXES,
    PEEK_LINES,
    Entry,
    NamedList,
    find_lists,
    list_content,
    listing_of,
    looks_listed,
)

NAME = re.compile(
    r"(?!(?:train|test)list\d+\.txt)(?:.*[_-])?(?P<side>train|val|valid|validation|test)(?:_?list)?(?:_?split)?_?(?P<split>\d{0,2})"
    r"(?:_list)?(?:_?(?:videos?|videofolder|rawframes|frames|images|rgb))?\.(?:txt|csv|tsv|lst|list)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[,;\s]+")
_BETWEEN = ",; \t"
_POINT_ZERO = re.compile(r"(?<=\d)\.0+$")
_FILE_AND_TEXT = re.compile(
    rf'^(?P<path>.*?\.(?:{MEDIA_SUFFIXES})"?)(?:\s*[,;\t]\s*|\s+)(?P<name>\S.*)$', re.IGNORECASE
)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:\s|$)")
_SEVERAL = re.compile(r"\d+(?:\s*[,;|/ ]\s*\d+)+")
_ONE_NAME = re.compile(r'"[^"]*"|[^,;\t]*')
_HOW_TO_NAME = "name the columns in the first line, such as path,label, and write what holds a comma in double quotes"
_ONE_LABEL = "a clip has one label here; several labels are read from frame_lists only"
_OTHERS_HAVE = f"and other lines have %d: {_ONE_LABEL}"
_OF_KINETICS = "youtube_id"
"""A column of Kinetics."""
MAX_TRAILING_NUMBERS = 3
_VIDEOS_COUNTED = 3
"""Videos whose frames are counted to see whether a list has numbers of frames."""


def read_path_lists(root: Path) -> Listing:
    """Return the clips that the lists below `root` name.

    Raises:
        DatasetNotFoundError: there is no list, or none of its paths exists.
        DatasetFormatError: a line of a list is not valid; the message names it.
    """
    require_folder(root)
    named = find_lists(root, NAME)
    if not named:
        raise DatasetNotFoundError(f"{root} has no list of paths and labels such as train.txt; add it")
    rows = {each: read_rows(each.path, root) for each in named}
    names = _names_in(root, [row for each in rows.values() for row in each])
    labels = {name: label for label, name in enumerate(names)}
    lists = {each: [_entry(each, row, labels) for row in rows[each]] for each in named}
    frames = any(entry.end is not None for lines in lists.values() for _, entry in lines)
    if not names and find_class_list(root, LIST_FOLDERS) is None:
        first, names = _names_beside_numbers(rows)
        lists = {each: [(line, entry.counted_from(first)) for line, entry in lists[each]] for each in named}
    return listing_of(root, lists, frames=frames, class_names=names)


def _names_beside_numbers(rows: Mapping[NamedList, Sequence[Row]]) -> tuple[int, tuple[str, ...]]:
    """Return the number of the first class and the names of all, of lists with numbers and names; else 0 and none.

    Raises:
        DatasetFormatError: a class has two names.
    """
    found: dict[int, tuple[str, str]] = {}
    for each, of_list in rows.items():
        for row in of_list:
            where = f"{each.path}:{row.number}"
            if row.class_name:
                name, before = found.setdefault(row.numbers[-1], (row.class_name, where))
                if name != row.class_name:
                    raise DatasetFormatError(
                        f"{where}: class {row.numbers[-1]} is {quoted(row.class_name)} here and {quoted(name)} in "
                        f"{before}: make them agree"
                    )
    first = min(found, default=0)
    if first > 1 or sorted(found) != list(range(first, first + len(found))):
        return 0, ()
    return first, tuple(found[number][0] for number in sorted(found))


def is_path_lists(root: Path) -> bool:
    """Return whether there is a train list of paths and labels that is not certainly one of `frame_lists`.

    A list in which some lines are not valid is recognised too: reading it names the line.
    """
    train = [named.path for named in find_lists(root, NAME) if named.side == "train"]
    if not train or frame_lists.claims(train[0]) == "certainly":
        return False
    columns, lines = list_content(train[0])
    if columns is not None:
        return bool(lines) and columns.label() is not None and _OF_KINETICS not in columns.names
    lines = lines[:PEEK_LINES]
    if lines and _OF_KINETICS in lines[0][1].lower():
        return False
    listed = sum(bool(_numbers(line)) or looks_listed(line) for _, line in lines)
    return bool(lines) and 2 * listed > len(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a list, split into its columns."""

    number: int
    """Of the line, from 1."""
    path: str
    numbers: tuple[int, ...] = ()
    """Up to three after the path; the last is the label."""
    name: str = ""
    """The class as text, in lists without numbers."""
    class_name: str = ""
    """The name of the class beside its number, in lists that have both."""


def read_rows(path: Path, root: Path) -> list[Row]:
    """Return the lines of a list, with the same count of numbers (0 to 3) for all.

    Args:
        root: the data set's folder, where a video is opened if its list may have numbers of frames or second labels.

    Raises:
        DatasetFormatError: a line has no path, several labels, or others than the lines around it.
    """
    columns, lines = list_content(path)
    if columns is not None:
        return [_row_by_columns(path, number, line, columns) for number, line in lines]
    found = [_numbers(line) for _, line in lines]
    count = min(map(len, found), default=0)
    if count == 0:
        _require_label_last(path, lines)
    if count == 0 and any(found):
        numbered = next(number for (number, _), numbers in zip(lines, found, strict=True) if numbers)
        number, line = next(at for at, numbers in zip(lines, found, strict=True) if not numbers)
        raise DatasetFormatError(
            f"{path}:{number}: {quoted(line)} has no label that is a number from 0, as line {numbered} has"
        )
    if count == 0:
        return [_named_row(path, number, line) for number, line in lines]
    rows = [_numbered_row(path, number, line, count) for number, line in lines]
    longer = [row for row, numbers in zip(rows, found, strict=True) if len(numbers) > count]
    _require_numbers_in_names(path, longer, count, root)
    _require_single_labels(path, rows, root)
    return rows


def _require_numbers_in_names(path: Path, rows: Sequence[Row], count: int, root: Path) -> None:
    """Check that the numbers by which some lines have more than others are part of their paths on disk."""
    listed = ListedPaths(root, MEDIA_FOLDERS) if rows else None
    for row in rows:
        shorter = _SEPARATOR.split(row.path)[0]
        if listed is not None and listed.find(row.path) is None and listed.find(shorter) is not None:
            raise DatasetFormatError(
                f"{path}:{row.number}: {quoted(shorter)} is followed by more numbers, {_OTHERS_HAVE % count}"
            )


def _require_label_last(path: Path, lines: Sequence[tuple[int, str]]) -> None:
    """Check that files do not end the lines, after their labels."""
    number, line = lines[0] if lines else (0, "")
    before, _, last = line.strip().rpartition(next((mark for mark in "\t;," if mark in line), " "))
    if before and looks_listed(last) and not looks_listed(before):
        raise DatasetFormatError(
            f"{path}:{number}: {quoted(line)} has its label before its path: name the columns in the first line, "
            "such as label,path"
        )


def _row_by_columns(path: Path, number: int, line: str, columns: Columns) -> Row:
    """Return a line of a list whose first line names the columns."""
    where = f"{path}:{number}"
    fields = columns.fields(line, where)
    listed, label, segment = fields[columns.path()], columns.label(), columns.segment()
    if not listed:
        raise DatasetFormatError(f"{where}: {quoted(line)} has no path")
    name = "" if label is None else fields[label]
    cut = tuple(_whole(fields[place]) for place in segment or ())
    if None in cut:
        raise DatasetFormatError(f"{where}: {quoted(line)} has no whole numbers as offset and number of frames")
    class_number = _whole(name)
    if class_number is None:
        if _SEVERAL.fullmatch(name):
            raise DatasetFormatError(f"{where}: {quoted(line)} has several labels: {_ONE_LABEL}")
        if _NUMBER.fullmatch(name):
            raise DatasetFormatError(f"{where}: {quoted(line)} has no label that is a number from 0")
        if cut and name:
            raise DatasetFormatError(f"{where}: segments need labels that are numbers, not {quoted(name)}")
        return Row(number=number, path=listed, name=name)
    numbers = (*(each for each in cut if each is not None), class_number)
    named = columns.class_name()
    class_name = "" if named is None or _whole(fields[named]) is not None else fields[named]
    return Row(number=number, path=listed, numbers=numbers, class_name=class_name)


def _numbered_row(path: Path, number: int, line: str, count: int) -> Row:
    rest = line
    for _ in range(count):
        rest = rest.rstrip(_BETWEEN)
        rest = rest[: len(rest) - len(_SEPARATOR.split(rest)[-1])]
    rest = rest.rstrip(_BETWEEN).strip('"')
    if not rest:
        raise DatasetFormatError(f"{path}:{number}: {quoted(line)} has no path")
    between = _FILE_AND_TEXT.match(rest)
    if between is not None and not _numbers(rest):
        raise DatasetFormatError(
            f"{path}:{number}: {quoted(line)} has text between its path and its numbers: {_HOW_TO_NAME}"
        )
    numbers = _numbers(line)
    if len(numbers) > count and looks_listed(rest.partition(" ")[0]) and _numbers(rest):
        raise DatasetFormatError(f"{path}:{number}: {quoted(line)} has {len(numbers)} numbers, {_OTHERS_HAVE % count}")
    return Row(number=number, path=rest, numbers=numbers[len(numbers) - count :])


def _require_single_labels(path: Path, rows: Sequence[Row], root: Path) -> None:
    """Check that the first of two numbers after a video's file is a count of frames and not another label."""
    two = [row for row in rows if len(row.numbers) == 2 and is_video_name(row.path)]
    if two and not _are_counts(two, root):
        raise DatasetFormatError(
            f"{path}:{two[0].number}: {two[0].numbers[0]} may be a number of frames or a further label of "
            f"{two[0].path}: write one label for a video, or name the columns in the first line: path,num_frames,label"
        )


def _are_counts(rows: Sequence[Row], root: Path) -> bool:
    """Return whether the first videos that exist have as many frames as their lines say, but for one."""
    from ..reading.video import video_length  # lists can be read without FFmpeg where they say what they mean

    listed = ListedPaths(root, MEDIA_FOLDERS)
    found = ((row, medium) for row in rows if (medium := listed.find(row.path)) is not None)
    agree = False
    for row, medium in islice(found, _VIDEOS_COUNTED):
        try:
            frames = video_length(root / medium.path).frames
        except VideoError:
            continue
        if abs(frames - row.numbers[0]) > 1:
            return False
        agree = True
    return agree


def _named_row(path: Path, number: int, line: str) -> Row:
    """Return a line whose class is text: after the suffix of the file, else after the last separator.

    Raises:
        DatasetFormatError: there may be further columns before or after the class.
    """
    where = f"{path}:{number}"
    found = _FILE_AND_TEXT.match(line)
    if found is not None:
        listed, name, others = found["path"], found["name"].strip(), found["name"]
        if name.lstrip("+-").replace(".", "").isnumeric():
            raise DatasetFormatError(f"{where}: {quoted(line)} has no label that is a number from 0")
    else:
        mark = next((mark for mark in "\t;," if mark in line), "")
        listed, _, name = line.rpartition(mark) if mark else (line, "", "")
        others, name = listed.strip(), name.strip()
        if not listed.strip():
            raise DatasetFormatError(f"{where}: {quoted(line)} has no path")
    if _NUMBER.match(name) or not _ONE_NAME.fullmatch(others.strip()):
        raise DatasetFormatError(f"{where}: {quoted(line)} has columns besides a path and a class: {_HOW_TO_NAME}")
    return Row(number=number, path=listed.strip('" '), name=name.strip('" '))


def _names_in(root: Path, rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the names of classes in lists that hold them, in the order of the class list or of the alphabet."""
    named = sorted({row.name for row in rows if row.name})
    if not named:
        return ()
    class_list = find_class_list(root, LIST_FOLDERS)
    return tuple(named) if class_list is None else read_class_list(class_list)


def _numbers(line: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for word in reversed(_SEPARATOR.split(line)[1:]):  # the first is the path, which may be a number too
        number = _whole(word.strip('"'))
        if number is None or len(numbers) == MAX_TRAILING_NUMBERS:
            break
        numbers.insert(0, number)
    return tuple(numbers)


def _whole(word: str) -> int | None:
    return whole_number(_POINT_ZERO.sub("", word))


def _entry(named: NamedList, row: Row, labels: Mapping[str, int]) -> tuple[int, Entry]:
    where = f"{named.path}:{row.number}"
    path, numbers = safe_path(row.path, where), row.numbers
    if not numbers and not row.name and named.side != "test":
        raise DatasetFormatError(f"{where}: {quoted(row.path)} has no label")
    if row.name:
        if row.name not in labels:
            raise DatasetFormatError(f"{where}: class {quoted(row.name)} is not in the class list; add it")
        return row.number, Entry(path=path, labels=(labels[row.name],))
    if labels and numbers:
        raise DatasetFormatError(
            f"{where}: {numbers[-1]} is a number, and other lists name their classes; use one kind"
        )
    if len(numbers) == MAX_TRAILING_NUMBERS:
        offset, count, label = numbers
        segment = f"@{offset}+{count}"
        return row.number, Entry(path=path, labels=(label,), start=offset, end=offset + count, segment=segment)
    return row.number, Entry(path=path, labels=numbers[-1:])
