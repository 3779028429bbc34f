"""Lists of paths and labels, as mmaction2, PySlowFast and many others write them.

    Archery/v_Archery_g01_c01.avi 2              path and label: a video, an image or a folder of frames
    Archery/v_Archery_g01_c01 130 2              path, number of frames, label: a folder of frames
    Archery/v_Archery_g01_c01 20 130 2           path, frames before the first, number of frames, label

Lists are called `train.txt`, `kinetics400_val_list_videos.txt`, `ucf101_train_split_2_rawframes.txt`,
`trainlist01.csv` and the like, and are in the root, `annotations/`, `lists/` or `splits/`. Columns are separated
by spaces, tabs or commas. Labels count from 0. Paths start at the root or at one of the folders that mmaction2
uses (`videos/`, `videos_train/`, `rawframes/`, ...). A number of frames without an offset is ignored.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.listing import Listing, read_lines, require_folder, safe_path, whole_number
from . import frame_lists
from .lists import PEEK_LINES, Entry, NamedList, find_lists, listing_of

NAME = re.compile(
    r"(?!(?:train|test)list\d+\.txt)(?:.*[_-])?(?P<side>train|val|valid|validation|test)(?:_?list)?(?:_?split)?_?(?P<split>\d{0,2})"
    r"(?:_list)?(?:_(?:videos?|rawframes|frames|images|rgb))?\.(?:txt|csv|list)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[,\s]+")
MAX_TRAILING_NUMBERS = 3


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
    lists = {each: _read_list(each) for each in named}
    frames = any(entry.end is not None for lines in lists.values() for _, entry in lines)
    return listing_of(root, lists, frames=frames)


def is_path_lists(root: Path) -> bool:
    """Return whether there is a train list of paths and labels that is not certainly one of `frame_lists`."""
    train = [named.path for named in find_lists(root, NAME) if named.side == "train"]
    if not train or frame_lists.claims(train[0]) == "certainly":
        return False
    lines = read_lines(train[0])[:PEEK_LINES]
    return bool(lines) and all(_numbers(line) for _, line in lines)


def trailing_numbers(path: Path) -> list[tuple[int, str, tuple[int, ...]]]:
    """Return (line number, path, numbers after it) of each line, with the same count of numbers (0 to 3) for all.

    Raises:
        DatasetFormatError: a line has no path.
    """
    lines = [(number, line, _numbers(line)) for number, line in read_lines(path)]
    count = min((len(numbers) for _, _, numbers in lines), default=0)
    split = []
    for number, line, numbers in lines:
        rest = line
        for _ in range(count):
            rest = rest.rstrip(", \t")
            rest = rest[: len(rest) - len(_SEPARATOR.split(rest)[-1])]
        rest = rest.rstrip(", \t").strip('"')
        if not rest:
            raise DatasetFormatError(f"{path}:{number}: {quoted(line)} has no path")
        split.append((number, rest, numbers[len(numbers) - count :]))
    return split


def _numbers(line: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for word in reversed(_SEPARATOR.split(line)):
        number = whole_number(word)
        if number is None or len(numbers) == MAX_TRAILING_NUMBERS:
            break
        numbers.insert(0, number)
    return tuple(numbers)


def _read_list(named: NamedList) -> list[tuple[int, Entry]]:
    entries = []
    for number, listed, numbers in trailing_numbers(named.path):
        where = f"{named.path}:{number}"
        path = safe_path(listed, where)
        if not numbers and named.side != "test":
            raise DatasetFormatError(f"{where}: {quoted(listed)} has no label")
        if len(numbers) == MAX_TRAILING_NUMBERS:
            offset, count, label = numbers
            entry = Entry(path=path, labels=(label,), start=offset, end=offset + count, segment=f"@{offset}+{count}")
        else:
            entry = Entry(path=path, labels=numbers[-1:])
        entries.append((number, entry))
    return entries
