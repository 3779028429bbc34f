"""The layout of UCF101: class folders of videos and numbered train and test lists.

The videos may be in `videos/`, `UCF-101/`, `UCF101/` or the root itself, and the lists (`classInd`,
`trainlistNN`, `testlistNN`, with or without `.txt`) in `annotations/ucf101_splits/`, `ucfTrainTestlist/`,
`annotations/` or the root. File names are matched without regard to case, because lists and files disagree
(`HandstandPushups`, `HandStandPushups`). The class is the folder's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import DatasetError, DatasetFormatError, DatasetNotFoundError, quoted
from ..index.groups import source_group
from ..index.label_maps import first_number, read_class_list
from ..index.listing import (
    FileTree,
    Listing,
    find_case_insensitive,
    matching_files_anywhere,
    parent_of_classes,
    read_lines,
    require_folder,
    whole_number,
)
from ..index.records import ListedClip, Subset

_VIDEO_FOLDERS = ("videos", "UCF-101", "UCF101", "")
_LIST_FOLDERS = ("annotations/ucf101_splits", "ucfTrainTestlist", "annotations", "")
_LIST_NAME = re.compile(r"(train|test)list(\d+)(\.txt)?", re.IGNORECASE)


@dataclass(slots=True)
class _Draft:
    """A clip while its lists are being read."""

    label: int
    stem: str
    listed: str
    sides: dict[int, Subset] = field(default_factory=dict)


def read_ucf101(root: Path) -> Listing:
    """Return the clips that the lists below `root` name, in all of its splits.

    Raises:
        DatasetNotFoundError: the root, its class folders or its lists are missing.
        DatasetFormatError: a line of a list is not valid; the message names it.
    """
    require_folder(root)
    lists, class_file = _find_lists(root)
    class_names, first = read_class_list(class_file), first_number(class_file)
    drafts: dict[str, _Draft] = {}
    for (split, side), path in sorted(lists.items()):
        _read_list(path, split=split, side=side, classes=(class_names, 1 if first is None else first), drafts=drafts)
    return _resolve(root, class_names, drafts)


def is_ucf101(root: Path) -> bool:
    """Return whether there are official lists and class folders."""
    try:
        _, class_file = _find_lists(root)
        parent_of_classes(root, _VIDEO_FOLDERS, read_class_list(class_file))
    except DatasetError:
        return False
    return True


def _find_lists(root: Path) -> tuple[dict[tuple[int, Subset], Path], Path]:
    found = matching_files_anywhere(root, _LIST_FOLDERS, _LIST_NAME)
    if not found:
        raise DatasetNotFoundError(
            f"{root} has no trainlistNN.txt; put the official lists into {root / 'ucfTrainTestlist'}"
        )
    lists: dict[tuple[int, Subset], Path] = {
        (int(match[2]), "train" if match[1].lower() == "train" else "test"): path for match, path in found
    }
    folder = found[0][1].parent
    for spelling in ("classInd.txt", "classInd"):
        class_file = find_case_insensitive(folder, spelling)
        if class_file is not None:
            return lists, class_file
    raise DatasetNotFoundError(f"{folder} has lists but no classInd.txt; add the official one")


def _read_list(
    path: Path,
    *,
    split: int,
    side: Subset,
    classes: tuple[tuple[str, ...], int],
    drafts: dict[str, _Draft],
) -> None:
    """Read one list into `drafts`; `classes` are their names, and the number of the first in the class list."""
    class_names, first = classes
    labels = {name.lower(): label for label, name in enumerate(class_names)}
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        file, label = _split_line(line)
        folder, _, name = file.replace("\\", "/").partition("/")
        if folder in {"", ".", ".."} or not name or "/" in name:
            raise DatasetFormatError(f"{where}: {quoted(line)} is not '<class>/<file> [label]'")
        own = labels.get(folder.lower())
        if own is None:
            raise DatasetFormatError(f"{where}: class {quoted(folder)} is not in the class list")
        if label is not None and label != own + first:
            raise DatasetFormatError(
                f"{where}: label {label} is not that of {quoted(folder)} in the class list, {own + first}"
            )
        listed = f"{folder}/{name}"
        draft = drafts.get(listed.lower())
        if draft is None:
            draft = _Draft(label=own, stem=PurePosixPath(name).stem, listed=listed)
            drafts[listed.lower()] = draft
        if draft.sides.setdefault(split, side) != side:
            raise DatasetFormatError(f"{where}: {quoted(listed)} is on the train and on the test list of split {split}")


def _split_line(line: str) -> tuple[str, int | None]:
    """Return the file, which may contain spaces, and the label after it, or None without one."""
    words = line.rsplit(maxsplit=1)
    label = whole_number(words[-1])
    return (line, None) if label is None or len(words) == 1 else (words[0], label)


def _resolve(root: Path, class_names: tuple[str, ...], drafts: dict[str, _Draft]) -> Listing:
    video_folder = parent_of_classes(root, _VIDEO_FOLDERS, class_names)
    tree = FileTree(video_folder)
    below = video_folder.relative_to(root).as_posix()
    prefix = "" if below == "." else f"{below}/"
    clips, found = [], set()
    for draft in drafts.values():
        on_disk = tree.find(draft.listed)
        if on_disk is not None:
            found.add(on_disk)
        id_ = f"{class_names[draft.label]}/{draft.stem}"
        clips.append(
            ListedClip(
                id=id_,
                path=prefix + (on_disk or draft.listed),
                label=draft.label,
                class_name=class_names[draft.label],
                # A clip without a group in its name is its own group.
                group=source_group(class_names[draft.label], draft.stem) or id_,
                official=tuple(sorted(draft.sides.items())),
            )
        )
    folders = {name.lower() for name in class_names}
    unlisted = [v for v in tree.videos() - found if v.partition("/")[0].lower() in folders]
    notes: tuple[str, ...] = ()
    if unlisted:
        notes = (f"{len(unlisted)} videos are on no list, e.g. {min(unlisted)}",)
    return Listing(class_names=class_names, clips=tuple(clips), notes=notes)
