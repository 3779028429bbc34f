"""Frames, flow and one JSON per split: a layout of two-stream networks.

    annotations/annot01.json                     {"labels": {"1": name}, "training": {clip: {"label": 1, ...}},
                                                  "validation": {...}}
    images/v_X_g01_c01/frame000001.jpg           flat, or below a folder of the class
    flows/u/v_X_g01_c01/frame000001.jpg          horizontal flow, if there is any; vertical in `flows/v`

Labels count from 1. The validation list is the official test list. `nframes` is ignored: frames are counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.groups import source_group
from ..index.label_maps import checked_names, in_order
from ..index.listing import (
    Listing,
    find_folder,
    is_dir,
    matching_files,
    read_json,
    require_folder,
    safe_path,
    whole_number,
)
from ..index.records import FlowFiles, ListedClip, Subset
from ..reading.media import flow_names, frame_names

_LIST_NAME = re.compile(r"annot(\d+)\.json")
_LIST_FOLDERS = ("annotations", "")
_SIDES: dict[str, Subset] = {"training": "train", "validation": "test"}


@dataclass(slots=True)
class _Draft:
    """A clip while its lists are being read."""

    label: int
    sides: dict[int, Subset] = field(default_factory=dict)


def read_annot_json(root: Path) -> Listing:
    """Return the clips that `annot0N.json` name, with their flow if `flows/` has it.

    Raises:
        DatasetNotFoundError: the lists or `images/` are missing.
        DatasetFormatError: a list is not as described above, or two disagree; the message names it.
    """
    require_folder(root)
    lists = _find_lists(root)
    if not lists:
        raise DatasetNotFoundError(f"{root} has no annotations/annot01.json; generate it with `hpo data export`")
    images = find_folder(root, "images")
    if images is None:
        raise DatasetNotFoundError(f"{root} has no images/; put one folder of frames per clip there")
    class_names: tuple[str, ...] = ()
    drafts: dict[str, _Draft] = {}
    for split, path in sorted(lists.items()):
        names = _read_list(path, split, drafts)
        if class_names and names != class_names:
            raise DatasetFormatError(f"{path} names other classes than the lists before it; make them agree")
        class_names = names
    return _resolve(root, images, class_names, drafts)


def is_annot_json(root: Path) -> bool:
    """Return whether the lists and `images/` exist."""
    return bool(_find_lists(root)) and find_folder(root, "images") is not None


def _find_lists(root: Path) -> dict[int, Path]:
    return {int(match[1]): path for match, path in matching_files(root, _LIST_FOLDERS, _LIST_NAME)}


def _read_list(path: Path, split: int, drafts: dict[str, _Draft]) -> tuple[str, ...]:
    content = read_json(path)
    if not isinstance(content, dict) or not {"labels", *_SIDES} <= set(content):
        raise DatasetFormatError(f"{path} lacks 'labels', 'training' or 'validation'; generate it again")
    class_names = _read_labels(path, content["labels"])
    for key, side in _SIDES.items():
        if not isinstance(content[key], dict):
            raise DatasetFormatError(f"{path}: {quoted(key)} is not a mapping of clips; generate it again")
        for name, entry in content[key].items():
            where = f"{path}: {key}.{name}"
            label = _label(entry, len(class_names), where)
            draft = drafts.setdefault(safe_path(name, where), _Draft(label=label))
            if draft.label != label:
                raise DatasetFormatError(f"{where}: label {label + 1} is not that of another list, {draft.label + 1}")
            if draft.sides.setdefault(split, side) != side:
                raise DatasetFormatError(f"{where}: the clip is on both lists of split {split}")
    return class_names


def _read_labels(path: Path, labels: Any) -> tuple[str, ...]:
    given = labels if isinstance(labels, dict) else {}
    numbered = {number: str(name) for key, name in given.items() if (number := whole_number(key)) is not None}
    if not numbered or len(numbered) < len(given):
        raise DatasetFormatError(f"{path}: 'labels' is not a mapping of numbers to names; generate it again")
    return checked_names(path, in_order(path, numbered))


def _label(entry: Any, n_classes: int, where: str) -> int:
    label = entry.get("label") if isinstance(entry, dict) else None
    if not isinstance(label, int) or not 1 <= label <= n_classes:
        raise DatasetFormatError(f"{where}: label {quoted(label)} is not in 1..{n_classes}")
    return label - 1


def _flow_files(root: Path, frames: Path, below: str) -> FlowFiles | None:
    """Return the flow of a clip, or None if `flows/` has none."""
    x, y = root / "flows" / "u" / below, root / "flows" / "v" / below
    if not (is_dir(x) and is_dir(y)):
        return None
    names = flow_names(x, y, frames)
    if names is None:
        return None
    place = below.replace("%", "%%")
    return FlowFiles(x=f"flows/u/{place}/{names[0]}", y=f"flows/v/{place}/{names[1]}", first=names[2])


def _resolve(root: Path, images: Path, class_names: tuple[str, ...], drafts: dict[str, _Draft]) -> Listing:
    clips, first_names = [], ""
    for name, draft in drafts.items():
        class_name = class_names[draft.label]
        below = next((p for p in (name, f"{class_name}/{name}") if is_dir(images / p)), name)
        path = f"{images.name}/{below}"
        is_there = is_dir(root / path)
        names = frame_names(root / path).frame if is_there else first_names
        first_names = first_names or names
        id_ = f"{class_name}/{name}"
        clips.append(
            ListedClip(
                id=id_,
                path=path,
                kind="frames",
                frame_name=names,
                flow=_flow_files(root, root / path, below) if is_there else None,
                label=draft.label,
                class_name=class_name,
                group=source_group(class_name, name) or id_,
                official=tuple(sorted(draft.sides.items())),
            )
        )
    return Listing(class_names=class_names, clips=tuple(clips))
