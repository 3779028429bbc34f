"""The layout of HMDB51: class folders of videos and, per class and split, a list of codes.

    brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi
    testTrainMulti_7030_splits/brush_hair_test_split1.txt:    April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1

Code 1 is train, 2 is test, and 0 is not in that split. Class folders are searched in `videos/`, `hmdb51_org/`,
`hmdb51/` and the root; lists in `testTrainMulti_7030_splits/`, `splits/`, `annotations/` and the root. The
classes are those of the lists, in alphabetical order, unless there is a class list.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.groups import source_group
from ..index.label_maps import find_class_list, read_class_list
from ..index.listing import (
    FileTree,
    Listing,
    is_video_name,
    matching_files_anywhere,
    parent_of_classes,
    read_lines,
    require_folder,
    safe_path,
)
from ..index.records import ListedClip, Subset

_VIDEO_FOLDERS = ("videos", "hmdb51_org", "hmdb51", "")
_LIST_FOLDERS = ("testTrainMulti_7030_splits", "splits", "annotations", "")
_LIST_NAME = re.compile(r"(.+)_test_split(\d+)\.txt")
_SIDES: dict[str, Subset | None] = {"0": None, "1": "train", "2": "test"}

_Sides = dict[int, Subset]


def read_hmdb51(root: Path) -> Listing:
    """Return the clips that the lists below `root` name; clips of one source are a group, also across classes.

    Raises:
        DatasetNotFoundError: the root, its class folders or its lists are missing.
        DatasetFormatError: a line of a list is not valid; the message names it.
    """
    require_folder(root)
    lists = _find_lists(root)
    if not lists:
        raise DatasetNotFoundError(
            f"{root} has no <class>_test_split1.txt; put the official lists into {root / _LIST_FOLDERS[0]}"
        )
    class_names = _class_names(root, lists)
    clips: dict[tuple[str, str], _Sides] = {}
    for (class_name, split), path in sorted(lists.items()):
        for file, side in _read_list(path):
            sides = clips.setdefault((class_name, file), {})
            if side is not None:
                sides[split] = side
    return _resolve(root, class_names, clips)


def is_hmdb51(root: Path) -> bool:
    """Return whether there are official lists."""
    return bool(_find_lists(root))


def _find_lists(root: Path) -> dict[tuple[str, int], Path]:
    return {(match[1], int(match[2])): path for match, path in matching_files_anywhere(root, _LIST_FOLDERS, _LIST_NAME)}


def _class_names(root: Path, lists: dict[tuple[str, int], Path]) -> tuple[str, ...]:
    listed = sorted({class_name for class_name, _ in lists})
    class_list = find_class_list(root, ("", "annotations", "splits"))
    if class_list is None:
        return tuple(listed)
    names = read_class_list(class_list)
    unknown = sorted(set(listed) - set(names))
    if unknown:
        raise DatasetFormatError(f"{class_list} lacks class {quoted(unknown[0])}, which has a list; add it")
    return names


def _read_list(path: Path) -> list[tuple[str, Subset | None]]:
    read: dict[str, Subset | None] = {}
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        file, code = line.rsplit(maxsplit=1) if len(line.split()) > 1 else ("", line)
        if code not in _SIDES or not file:
            raise DatasetFormatError(f"{where}: {quoted(line)} is not '<file> <0, 1 or 2>'")
        if "/" in safe_path(file, where):
            raise DatasetFormatError(f"{where}: {quoted(file)} names a folder; the class folder is implied")
        if read.setdefault(file, _SIDES[code]) != _SIDES[code]:
            raise DatasetFormatError(f"{where}: {quoted(file)} is listed twice, on two sides: keep one line")
    return list(read.items())


def _resolve(root: Path, class_names: tuple[str, ...], drafts: dict[tuple[str, str], _Sides]) -> Listing:
    video_folder = parent_of_classes(root, _VIDEO_FOLDERS, class_names)
    tree = FileTree(video_folder)
    below = video_folder.relative_to(root).as_posix()
    prefix = "" if below == "." else f"{below}/"
    labels = {name: label for label, name in enumerate(class_names)}
    clips, unnamed = [], 0
    for (class_name, file), sides in drafts.items():
        stem = file.rpartition(".")[0] if is_video_name(file) else file
        listed = f"{class_name}/{file}"
        group = source_group(class_name, stem)
        unnamed += group is None
        clips.append(
            ListedClip(
                id=f"{class_name}/{stem}",
                path=prefix + (tree.find(listed) or listed),
                label=labels[class_name],
                class_name=class_name,
                group=group or f"{class_name}/{stem}",
                official=tuple(sorted(sides.items())),
            )
        )
    notes = (f"{unnamed} file names do not name a source; each of these clips is its own group",) if unnamed else ()
    return Listing(class_names=class_names, clips=tuple(clips), notes=notes)
