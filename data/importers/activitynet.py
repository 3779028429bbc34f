"""JSON with a `database` of videos: ActivityNet, Kinetics, the UCF101 lists of 3D-ResNets, Annots of trimmed frames.

    {"database": {id: {"subset": "training", "annotations": [{"label": name, "segment": [start, end]}, ...]}}}
    {"database": {id: {"subset": "train", "label": name, "cls": 3, "isthere": 1, "numf": 250}},
     "classes": {name: 0, ...}}

A segment is the trimmed file with its seconds in the name (`<id>_000012_000022.mp4`), or is cut out of the whole video
(`<id>.mp4`, `v_<id>.mp4`) at the frame rate in its header, or by its timestamps if the rate varies. An entry without
a segment is the whole video or folder of frames of that name, at any depth up to four. Two segments of one video are
two clips. Segments that are all `[1, frames + 1]`, as 3D-ResNets writes them, are whole trimmed clips.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.label_maps import checked_names, find_class_list, in_order, read_class_list
from ..index.listing import Listing, find_folder, is_pipe_or_device, read_json, require_folder, safe_path
from .segments import Segment, SegmentedVideos, segments_listing, side_of

_LIST_FOLDERS = ("", "annotations")
_HEAD_BYTES = 1 << 16


def read_activitynet(root: Path) -> Listing:
    """Return the clips of the database that exist on disk; all clips of a video are one group.

    Raises:
        DatasetNotFoundError: there is no such JSON, or none of its videos exists.
        DatasetFormatError: the JSON is not as described above, or there are several.
    """
    require_folder(root)
    lists = _find_lists(root)
    if not lists:
        raise DatasetNotFoundError(f"{root} has no JSON with a 'database' of videos; add it")
    if len(lists) > 1:
        names = " and ".join(path.name for path in lists)
        raise DatasetFormatError(f"{root} has several databases, {names}; leave one of them")
    content = read_json(lists[0])
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise DatasetFormatError(f"{lists[0]} has no 'database' that maps ids to videos")
    whole = _counts_frames(content["database"].values())
    segments = [s for key, entry in content["database"].items() for s in _segments(lists[0], key, entry, whole=whole)]
    there = [segment for segment in segments if segment is not None]
    unavailable = len(segments) - len(there)
    notes = [f"{unavailable} videos are listed as not available"] if unavailable else []
    class_names = _class_names(root, lists[0], content, there)
    return segments_listing(SegmentedVideos(root=root, untrimmed=True), there, class_names, notes)


def is_activitynet(root: Path) -> bool:
    """Return whether there is a JSON with a database."""
    return bool(_find_lists(root))


def _find_lists(root: Path) -> list[Path]:
    for name in _LIST_FOLDERS:
        folder = find_folder(root, name)
        if folder is not None:
            lists = [path for path in sorted(folder.glob("*.json")) if _has_database(path)]
            if lists:
                return lists
    return []


def _has_database(path: Path) -> bool:
    """Return whether the file contains the key; its start is read first."""
    if is_pipe_or_device(path):
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        return b'"database"' in head or (len(head) == _HEAD_BYTES and b'"database"' in file.read())


def _counts_frames(entries: Iterable[Any]) -> bool:
    """Return whether all segments are `[1, frames + 1]`, as 3D-ResNets writes them of trimmed clips: no seconds."""
    found = [entry.get("annotations") if isinstance(entry, dict) else None for entry in entries]
    segments = [one.get("segment") if isinstance(one, dict) else None for one in found]
    return bool(segments) and all(
        isinstance(each, list) and len(each) == 2 and each[0] == 1 and all(isinstance(number, int) for number in each)
        for each in segments
    )


def _segments(path: Path, key: str, entry: Any, *, whole: bool) -> Iterator[Segment | None]:
    """Yield the segments of one video; None for a video that the list marks as not available.

    Args:
        whole: whether segments are those of trimmed clips, counted in frames.
    """
    where = f"{path}: database.{key}"
    if not isinstance(entry, dict):
        raise DatasetFormatError(f"{where} is not a mapping")
    video, side = safe_path(key, where), side_of(str(entry.get("subset", "")), where)
    if not entry.get("isthere", True):
        yield None
        return
    annotations = entry.get("annotations")
    if annotations is None:
        annotations = [{"label": _label_of(entry), "segment": entry.get("segment")}]
    for annotation in annotations if isinstance(annotations, list) else [annotations]:
        if not isinstance(annotation, dict):
            raise DatasetFormatError(f"{where}: annotations are not mappings")
        start, end = (None, None) if whole else _seconds(annotation.get("segment"), where)
        yield Segment(
            video=video,
            start=start,
            end=end,
            label=str(annotation.get("label") or ""),
            side=side,
            frames_per_second=_rate(entry),
            where=where,
        )


def _label_of(entry: dict[str, Any]) -> str:
    """Return the class name: whichever of `label` and `cls` is text; the other is its number."""
    return next((value for value in (entry.get("label"), entry.get("cls")) if isinstance(value, str)), "")


def _seconds(segment: Any, where: str) -> tuple[float | None, float | None]:
    if segment is None:
        return None, None
    if not isinstance(segment, list) or len(segment) != 2 or not all(isinstance(s, int | float) for s in segment):
        raise DatasetFormatError(f"{where}: segment {quoted(segment)} is not [start, end] in seconds")
    start, end = float(segment[0]), float(segment[1])
    if not (math.isfinite(end) and 0 <= start < end):
        raise DatasetFormatError(f"{where}: segment {quoted(segment)} is not [start, end] in seconds")
    return start, end


def _rate(entry: dict[str, Any]) -> float | None:
    frames, duration = entry.get("numf"), entry.get("duration")
    if isinstance(frames, int | float) and isinstance(duration, int | float) and duration > 0:
        return frames / duration
    return None


def _class_names(root: Path, path: Path, content: dict[str, Any], segments: list[Segment]) -> tuple[str, ...]:
    classes = content.get("classes", content.get("labels"))
    if isinstance(classes, dict) and all(isinstance(number, int) for number in classes.values()):
        return checked_names(path, in_order(path, {number: name for name, number in classes.items()}))
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        return checked_names(path, classes)
    class_list = find_class_list(root)
    if class_list is not None:
        return read_class_list(class_list)
    return tuple(sorted({segment.label for segment in segments if segment.label}))
