"""Kinetics: CSV lists of segments, and trimmed videos named after them.

    train.csv, val.csv, test.csv                 label,youtube_id,time_start,time_end,split[,is_cc]
    train/air drumming/<id>_000012_000022.mp4    in folders of classes or sides, or without, up to four deep

Lists are in the root or in `annotations/`. Thousands of the listed videos no longer exist: missing videos are left out
and counted in one note.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.label_maps import find_class_list, read_class_list
from ..index.listing import Listing, find_folder, first_line, is_file, is_pipe_or_device, read_text, require_folder
from .segments import Segment, SegmentedVideos, segments_listing, side_of

_LIST_FOLDERS = ("", "annotations")
_COLUMNS = {"youtube_id", "time_start", "time_end"}
_DELIMITERS = ",;\t"
_YOUTUBE_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_SIDE_IN_NAME = re.compile(r"(?:.*[_-])?(train|val|validate|validation|test)(?:[_-].*)?", re.IGNORECASE)


def read_kinetics(root: Path) -> Listing:
    """Return the listed segments that exist on disk; segments of one YouTube video are a group.

    Raises:
        DatasetNotFoundError: there is no list, or none of its videos exists.
        DatasetFormatError: a line of a list is not valid; the message names it.
    """
    require_folder(root)
    lists = _find_lists(root)
    if not lists:
        raise DatasetNotFoundError(f"{root} has no CSV list with label,youtube_id,time_start,time_end; add it")
    segments = [segment for path in lists for segment in _read_list(path)]
    class_list = find_class_list(root)
    listed = sorted({segment.label for segment in segments if segment.label})
    class_names = listed if class_list is None else read_class_list(class_list)
    return segments_listing(SegmentedVideos(root=root, untrimmed=False), segments, class_names)


def is_kinetics(root: Path) -> bool:
    """Return whether there are lists with the columns of Kinetics."""
    return bool(_find_lists(root))


def _find_lists(root: Path) -> list[Path]:
    for name in _LIST_FOLDERS:
        folder = find_folder(root, name)
        if folder is not None:
            lists = [path for path in sorted(folder.glob("*.csv")) if _has_columns(path)]
            if lists:
                return lists
    return []


def _has_columns(path: Path) -> bool:
    if is_pipe_or_device(path) or not is_file(path):
        return False
    try:
        return set(_columns(first_line(path))[1]) >= _COLUMNS
    except csv.Error:
        return False


def _columns(line: str) -> tuple[str, list[str]]:
    """Return what separates the columns that a line names, and their names in lower case."""
    delimiter = next((mark for mark in _DELIMITERS if mark in line), ",")
    return delimiter, [name.strip().lower() for name in next(csv.reader([line], delimiter=delimiter), [])]


def _read_list(path: Path) -> list[Segment]:
    text = io.StringIO(read_text(path))
    delimiter, names = _columns(text.readline())
    reader = csv.DictReader(text, names, delimiter=delimiter, skipinitialspace=True)
    try:
        return [_segment(row, path, f"{path}:{reader.line_num + 1}") for row in reader]
    except csv.Error as error:
        raise DatasetFormatError(f"{path}:{reader.line_num + 1}: is not CSV ({error})") from None


def _segment(row: dict[str, str | None], path: Path, where: str) -> Segment:
    if None in row.values() or None in row:
        found = sum(value is not None for value in row.values())
        more = "more columns than" if None in row else f"{found} columns, not the {len(row)} that"
        raise DatasetFormatError(f"{where}: has {more} the first line names")
    video = (row["youtube_id"] or "").strip()
    if not _YOUTUBE_ID.fullmatch(video):
        raise DatasetFormatError(f"{where}: {quoted(video)} is not a YouTube id")
    return Segment(
        video=video,
        start=_seconds(row["time_start"], where),
        end=_seconds(row["time_end"], where),
        label=(row.get("label") or "").strip(),
        side=side_of(row.get("split") or _side_in_name(path), where),
        where=where,
    )


def _side_in_name(path: Path) -> str:
    found = _SIDE_IN_NAME.fullmatch(path.stem)
    if found is None:
        raise DatasetFormatError(f"{path} neither has a column `split` nor train, val or test in its name")
    return found[1]


def _seconds(text: str | None, where: str) -> float:
    try:
        seconds = float(text or "")
    except ValueError:
        raise DatasetFormatError(f"{where}: {quoted(text)} is not a number of seconds") from None
    if not 0 <= seconds < 1e6:
        raise DatasetFormatError(f"{where}: {quoted(text)} is not a number of seconds of a video")
    return seconds
