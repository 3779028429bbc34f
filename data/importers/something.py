"""Something-Something, versions 1 and 2: lists of ids and class texts, the labels of the texts, and one video per id.

    something-something-v2-train.json            [{"id": "78687", "template": "Holding [something]", ...}, ...]
    something-something-v2-labels.json           {"Holding something": "0", ...}
    something-something-v1-train.csv             100218;Something falling like a rock
    jester-v1-train.csv, jester-v1-labels.csv    the same of Jester
    20bn-something-something-v2/78687.webm       or a folder of frames 78687/00001.jpg

Lists may also be called `train.json`, `validation.json`, `labels.json`. A template without its brackets is the
class. The test list has no labels, so the validation list is the sealed official test list. The names do not
show the sources: every clip is its own group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.label_maps import read_class_list
from ..index.listing import Listing, first_line, matching_files, read_json, read_lines, require_folder, safe_path
from .lists import PEEK_LINES
from .segments import Segment, SegmentedVideos, segments_listing

_LIST_FOLDERS = ("", "annotations", "labels")
_LIST_NAME = re.compile(r"(?:(?:something-something-v[12]|jester-v1)-)?(train|validation|test)\.(?:json|csv)")
_LABELS_NAME = re.compile(
    r"(?:(?:something-something-v[12]|jester-v1)-labels\.(?:json|csv)|labels\.json|.*sthv[12]_label_map\.txt)"
)
_OF_KINETICS = "youtube_id"
"""A column of Kinetics."""
_BRACKETS = re.compile(r"[\[\]]")


def read_something(root: Path) -> Listing:
    """Return the labelled clips of the lists; missing ones are counted in one note.

    Raises:
        DatasetNotFoundError: lists, labels or all videos are missing.
        DatasetFormatError: an entry of a list is not valid; the message names it.
    """
    require_folder(root)
    lists, labels = _find_lists(root), matching_files(root, _LIST_FOLDERS, _LABELS_NAME)
    if not lists:
        raise DatasetNotFoundError(f"{root} has no something-something-v2-train.json; add the official lists")
    if not labels:
        raise DatasetNotFoundError(f"{root} has no something-something-v2-labels.json; add it, labels follow it")
    class_names = _read_labels(labels[0][1])
    segments = [
        Segment(video=id_, label=text, side=side) for side, path in lists.items() for id_, text in _read_list(path)
    ]
    return segments_listing(SegmentedVideos(root=root, untrimmed=False), segments, class_names)


def is_something(root: Path) -> bool:
    """Return whether there is a train list of ids and texts."""
    train = _find_lists(root).get("train")
    if train is None or (train.suffix == ".csv" and _OF_KINETICS in first_line(train).lower()):
        return False
    return any(text for _, text in list(islice(_read_list(train), PEEK_LINES)))


def _find_lists(root: Path) -> dict[str, Path]:
    """Return the list of each side."""
    return {match[1]: path for match, path in matching_files(root, _LIST_FOLDERS, _LIST_NAME)}


def _read_labels(path: Path) -> tuple[str, ...]:
    return tuple(_BRACKETS.sub("", name) for name in read_class_list(path))


def _read_list(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (id, class or an empty string) of every entry."""
    if path.suffix == ".csv":
        for number, line in read_lines(path):
            id_, _, text = line.partition(";")
            yield _id(id_, f"{path}:{number}"), text.strip()
        return
    content = read_json(path)
    if not isinstance(content, list):
        raise DatasetFormatError(f"{path} is not a list of entries with 'id' and 'template'")
    for position, entry in enumerate(content):
        where = f"{path}[{position}]"
        if not isinstance(entry, dict) or "id" not in entry:
            raise DatasetFormatError(f"{where} has no 'id'")
        yield _id(str(entry["id"]), where), _BRACKETS.sub("", str(entry.get("template", "")))


def _id(id_: str, where: str) -> str:
    if "/" in safe_path(id_, where):
        raise DatasetFormatError(f"{where}: {quoted(id_)} is not an id")
    return id_.strip()
