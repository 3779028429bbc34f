"""Plain class folders, with or without folders for the sides above them.

    <Class>/clip.avi                             a video
    <Class>/<clip>/00001.jpg                     a folder of frames
    <Class>/picture.jpg                          an image: a clip of one frame

    training/<Class>/...                         the same with the sides as folders: `training` or `train`,
    validation/<Class>/...                       `validation` or `val`, `test` or `testing`

The class folders are in the root, or in `videos/`, `frames/` or `images/`. Labels come from a class list
(`classInd.txt`, `classes.txt`, `labels.json`, ...) if there is one; else from the names of all class folders,
of every side together, in alphabetical order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.groups import source_group
from ..index.label_maps import find_class_list, read_class_list
from ..index.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Listing, find_folder, official_sides, require_folder
from ..index.records import ListedClip, Subset
from ..reading.media import FrameNames, Medium, frame_names, holds_frames

_PARENTS = ("videos", "frames", "images", "")
_SIDES = {
    "train": ("training", "train"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}


def read_class_folders(root: Path) -> Listing:
    """Return every clip below the class folders; all are train clips of split 1, and no test list exists.

    Raises:
        DatasetNotFoundError: there is no class folder with clips.
        DatasetFormatError: a class list lacks a folder's name.
    """
    require_folder(root)
    for name in _PARENTS:
        folder = find_folder(root, name)
        if folder is not None and _has_clips(folder):
            return _listing(root, {folder: "train"}, ())
    raise DatasetNotFoundError(f"{root} has no class folders with videos, frame folders or images; put some there")


def read_training_validation(root: Path) -> Listing:
    """Return every clip below the class folders of each side.

    The validation folder is the sealed official test list, unless there is a test folder too.

    Raises:
        DatasetNotFoundError: there is no training folder with clips, or no other.
        DatasetFormatError: a class list lacks a folder's name.
    """
    require_folder(root)
    found = _side_folders(root)
    if "train" not in found or len(found) == 1:
        raise DatasetNotFoundError(
            f"{root} lacks class folders in training/ and in validation/ or test/; put them there"
        )
    sides, notes = official_sides(found)
    return _listing(root, {folder: sides[side] for side, folder in found.items()}, notes)


def is_class_folders(root: Path) -> bool:
    """Return whether there are class folders with clips; this is true of many other layouts as well."""
    folders = (find_folder(root, name) for name in _PARENTS)
    return not _side_folders(root) and any(folder is not None and _has_clips(folder) for folder in folders)


def is_training_validation(root: Path) -> bool:
    """Return whether there are class folders with clips below `training/` and below another side."""
    found = _side_folders(root)
    return "train" in found and len(found) > 1


def _side_folders(root: Path) -> dict[str, Path]:
    found = {}
    for side, names in _SIDES.items():
        for name in names:
            folder = find_folder(root, name)
            if side not in found and folder is not None and _has_clips(folder):
                found[side] = folder
    return found


def _has_clips(folder: Path) -> bool:
    return next(_classes_in(folder), None) is not None


def _classes_in(folder: Path) -> Iterator[str]:
    """Yield the names of the folders that hold clips, in order."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith(".") and any(_clips_of(Path(entry.path), "")):
            yield entry.name


def _clips_of(folder: Path, below: str) -> Iterator[Medium]:
    """Yield the clips in one class folder, in the order of their names."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = f"{below}{entry.name}"
        suffix = PurePosixPath(entry.name).suffix.lower()
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if holds_frames(Path(entry.path)):
                yield Medium(path=path, kind="frames")
        elif suffix in VIDEO_SUFFIXES:
            yield Medium(path=path, kind="video")
        elif suffix in IMAGE_SUFFIXES:
            yield Medium(path=path, kind="image")


@dataclass(slots=True)
class _Builder:
    """Builds the clips of one listing."""

    root: Path
    labels: dict[str, int]
    names: FrameNames | None = None

    def clips(self, folder: Path, side: Subset, *, prefix: str) -> Iterator[ListedClip]:
        for class_name in _classes_in(folder):
            path = folder / class_name
            for medium in _clips_of(path, path.relative_to(self.root).as_posix() + "/"):
                yield self._clip(medium, class_name, side, prefix)

    def _clip(self, medium: Medium, class_name: str, side: Subset, prefix: str) -> ListedClip:
        if medium.kind == "frames" and self.names is None:
            self.names = frame_names(self.root / medium.path)
        names = self.names if medium.kind == "frames" and self.names else FrameNames()
        id_ = f"{prefix}{class_name}/{medium.stem}"
        return ListedClip(
            id=id_,
            path=medium.path,
            kind=medium.kind,
            frame_name=names.frame,
            flow=names.flow_files(medium.path),
            label=self.labels[class_name],
            class_name=class_name,
            group=source_group(class_name, medium.stem) or id_,
            official=((1, side),),
        )


def _listing(root: Path, folders: dict[Path, Subset], notes: tuple[str, ...]) -> Listing:
    class_names, notes = _class_names(root, folders, notes)
    builder = _Builder(root=root, labels={name: label for label, name in enumerate(class_names)})
    clips: list[ListedClip] = []
    for folder, side in folders.items():
        prefix = f"{folder.name}/" if len(folders) > 1 else ""
        clips.extend(builder.clips(folder, side, prefix=prefix))
    return Listing(class_names=class_names, clips=tuple(clips), notes=notes)


def _class_names(
    root: Path, folders: dict[Path, Subset], notes: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    present = {name for folder in folders for name in _classes_in(folder)}
    class_list = find_class_list(root)
    if class_list is None:
        note = "there is no class list: labels follow the names of the class folders in alphabetical order"
        return tuple(sorted(present)), (*notes, note)
    names = read_class_list(class_list)
    unknown = sorted(present - set(names))
    if unknown:
        raise DatasetFormatError(f"{class_list} lacks class {quoted(unknown[0])}, which has a folder; add it")
    return names, notes
