"""Plain class folders, with or without folders for the sides above them.

    <Class>/clip.avi                             a video
    <Class>/<clip>/00001.jpg                     a folder of frames
    <Class>/picture.jpg                          an image: a clip of one frame, in a class without videos and frames

    training/<Class>/...                         the same with the sides as folders: `training` or `train`,
    validation/<Class>/...                       `validation` or `val`, `test` or `testing`

The class folders are in the root, or in `videos/`, `frames/` or `images/`. Labels come from a class list
(`classInd.txt`, `classes.txt`, `labels.json`, ...) if there is one; else from the names of all class folders,
of every side together, in alphabetical order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.groups import source_group
from ..index.label_maps import find_class_list, read_class_list
from ..index.listing import (
    DOUBTFUL_VIDEO_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Listing,
    entries_of,
    find_folder,
    is_closed,
    is_folder,
    official_sides,
    require_folder,
    spelling,
    suffix_of,
)
from ..index.records import ListedClip, Subset
from ..reading.listed_media import has_no_bytes
from ..reading.media import FrameNames, Medium, frame_names, holds_frames, is_thumbnail, media_below

_PARENTS = ("videos", "frames", "images", "")
_NO_CLASSES = frozenset({*_PARENTS, "annotations", "lists", "splits", "labels"})
"""Folders beside class folders that are expected to hold something else."""
_MOST_KINDS = 6
SIDES = {
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
    for side, names in SIDES.items():
        for name in names:
            folder = find_folder(root, name)
            if side not in found and folder is not None and _has_clips(folder):
                found[side] = folder
    return found


def _has_clips(folder: Path) -> bool:
    return next(_classes_in(folder, folder), None) is not None


def _classes_in(folder: Path, root: Path) -> Iterator[tuple[str, _Found]]:
    """Yield the names of the folders that hold clips, in order, and what they hold with paths below `root`."""
    for entry in entries_of(folder):
        if is_folder(entry) and not entry.name.startswith("."):
            path = folder / entry.name
            found = _found_in(path, path.relative_to(root).as_posix() + "/")
            if found.clips:
                yield entry.name, found


@dataclass(kw_only=True, slots=True)
class _Found:
    """What one class folder holds."""

    clips: list[Medium]
    unused: list[str]
    """Paths of media that are no clips: pictures beside videos, and what lies in deeper folders."""
    closed: list[str]
    """Paths of entries that cannot be looked into (`listing.is_closed`)."""
    others: list[str]
    """Paths of files that are neither videos nor pictures, by their suffix."""


Classes = Mapping[str, _Found]
"""What the class folders in one folder hold, by their names."""


def _found_in(folder: Path, below: str) -> _Found:
    """Return the clips in one class folder, in the order of their names.

    A picture is a clip only where there are no videos and no folders of frames: beside them it is a thumbnail. So is a
    GIF, and an `.ogg` is sound.
    """
    media: list[Medium] = []
    pictures: list[Medium] = []
    unused: list[str] = []
    closed: list[str] = []
    others: list[str] = []
    for entry in entries_of(folder):
        path = f"{below}{entry.name}"
        suffix = suffix_of(entry.name)
        if entry.name.startswith("."):
            continue
        if is_folder(entry):
            if holds_frames(Path(entry.path)):
                media.append(Medium(path=path, kind="frames"))
            elif is_closed(entry):
                closed.append(path)
            elif entry.is_symlink():
                unused.append(path)  # it may lead in a circle
            else:
                unused += [f"{path}/{medium.path}" for medium in media_below(Path(entry.path))]
        elif suffix in VIDEO_SUFFIXES:
            media.append(Medium(path=path, kind="video"))
        elif suffix in IMAGE_SUFFIXES:
            pictures.append(Medium(path=path, kind="image"))
        else:
            (closed if is_closed(entry) else others).append(path)
    clear = [medium for medium in media if suffix_of(medium.path) not in DOUBTFUL_VIDEO_SUFFIXES]
    if clear:
        unused += [medium.path for medium in media if medium not in clear]
        media = clear
    shown = [] if media else [medium for medium in pictures if not is_thumbnail(medium.path)]
    unused += [medium.path for medium in pictures if medium not in shown]
    return _Found(clips=media or shown, unused=unused, closed=closed, others=others)


def _is_medium(name: str) -> bool:
    return suffix_of(name) in VIDEO_SUFFIXES | IMAGE_SUFFIXES


@dataclass(slots=True)
class _Builder:
    """Builds the clips of one listing."""

    root: Path
    labels: dict[str, tuple[int, str]]
    """Number and name of the class of each class folder."""
    unused: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    """Pictures in folders of frames that are no frames."""
    closed: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def clips(self, classes: Classes, side: Subset, *, prefix: str) -> Iterator[ListedClip]:
        for class_name, found in classes.items():
            self.unused += found.unused
            self.closed += found.closed
            self.others += found.others
            for medium in found.clips:
                yield self._clip(medium, class_name, side, prefix)

    def _clip(self, medium: Medium, folder: str, side: Subset, prefix: str) -> ListedClip:
        names = frame_names(self.root / medium.path) if medium.kind == "frames" else FrameNames()
        self.extra += [f"{medium.path}/{name}" for name in names.extra]
        id_ = f"{prefix}{folder}/{medium.stem}"
        label, class_name = self.labels[folder]
        return ListedClip(
            id=id_,
            path=medium.path,
            kind=medium.kind,
            frame_name=names.frame,
            flow=names.flow_files(medium.path),
            label=label,
            class_name=class_name,
            group=source_group(class_name, medium.stem) or id_,
            official=((1, side),),
        )


def _listing(root: Path, folders: dict[Path, Subset], notes: tuple[str, ...]) -> Listing:
    classes = {folder: dict(_classes_in(folder, root)) for folder in folders}
    present = {name for of_side in classes.values() for name in of_side}
    names, labels, remarks = class_names(root, present)
    builder = _Builder(root=root, labels=labels)
    clips: list[ListedClip] = []
    for folder, side in folders.items():
        prefix = f"{folder.name}/" if len(folders) > 1 else ""
        clips.extend(builder.clips(classes[folder], side, prefix=prefix))
    clips, problems = _by_name(root, clips)
    _require_named(root, clips, problems)
    notes = (*notes, *remarks, *_doubled(problems), *_unused(root, classes, builder))
    return Listing(class_names=names, clips=tuple(clips), notes=notes, problems=problems)


def _by_name(root: Path, clips: Iterable[ListedClip]) -> tuple[list[ListedClip], dict[str, str]]:
    """Return the clips with names of their own, and what is wrong with those that had none, by their new ids.

    Which of `a.avi` and `a.mp4`, or of a video and its frames, is meant cannot be known: neither is used. A file
    without bytes, as a failed download leaves it, is never meant.
    """
    named: dict[str, list[ListedClip]] = {}
    for clip in clips:
        named.setdefault(clip.id, []).append(clip)
    found: list[ListedClip] = []
    problems: dict[str, str] = {}
    for id_, of_name in named.items():
        if len(of_name) == 1:
            found += of_name
            continue
        left_out, full = of_name, [clip for clip in of_name if not has_no_bytes(root / clip.path)]
        why = "its name stands for two clips, {} and {}: remove or rename one of the two"
        if len(full) == 1:
            found += full
            left_out = [clip for clip in of_name if clip is not full[0]]
            why = f"it has no bytes, and {quoted(full[0].path)} is used: remove it"
        for clip in left_out:
            own = f"{id_.rpartition('/')[0]}/{clip.path.rpartition('/')[2]}"
            found.append(replace(clip, id=own))
            problems[own] = why.format(*(quoted(clip.path) for clip in of_name[:2]))
    return found, problems


def _require_named(root: Path, clips: Iterable[ListedClip], problems: Mapping[str, str]) -> None:
    """Check that no class is left without clips: it would be missing in every training."""
    usable = {clip.class_name for clip in clips if clip.id not in problems}
    for clip in clips:
        if clip.class_name not in usable:
            raise DatasetFormatError(
                f"{root} has no clip with a name of its own in class {quoted(clip.class_name)}: {clip.path}: "
                f"{problems[clip.id]}"
            )


def _doubled(problems: Mapping[str, str]) -> Iterator[str]:
    if problems:
        first, why = next(iter(problems.items()))
        yield f"{len(problems)} clips are left out, each beside one of its name, e.g. {first}: {why}"


def _unused(root: Path, classes: Mapping[Path, Classes], builder: _Builder) -> Iterator[str]:
    """Yield a note on each kind of thing that is there and is no clip."""
    if builder.unused:
        count, first = len(builder.unused), builder.unused[0]
        yield f"{count} pictures or deeper files beside clips are not used, e.g. {first}"
    if builder.extra:
        yield f"{len(builder.extra)} pictures in folders of frames are no frames, e.g. {builder.extra[0]}"
    closed = builder.closed + [
        entry.path for folder in classes for entry in entries_of(folder) if entry.is_symlink() and is_closed(entry)
    ]
    if builder.others:
        kinds = ", ".join(sorted({suffix_of(path) or "no suffix" for path in builder.others})[:_MOST_KINDS])
        yield f"{len(builder.others)} other files are not used ({kinds}), e.g. {builder.others[0]}"
    if closed:
        yield (
            f"{len(closed)} links that lead nowhere or folders that may not be read are left out, e.g. {closed[0]}: "
            "mend or remove them"
        )
    for folder, used in classes.items():
        others = [entry.name for entry in entries_of(folder) if is_folder(entry) and not entry.name.startswith(".")]
        empty = sorted(name for name in others if name not in used and (folder != root or name not in _NO_CLASSES))
        if empty:
            yield f"{len(empty)} folders hold no clips and are no classes, e.g. {empty[0]} of {folder}"
        loose = sorted(entry.name for entry in entries_of(folder) if _is_medium(entry.name) and not is_folder(entry))
        if loose:
            yield f"{len(loose)} files lie in no class folder and are not used, e.g. {loose[0]} of {folder}"


def class_names(root: Path, present: set[str]) -> tuple[tuple[str, ...], dict[str, tuple[int, str]], tuple[str, ...]]:
    """Return the names of the classes, number and name of the class of each of the folders, and notes."""
    class_list = find_class_list(root)
    if class_list is None:
        note = "there is no class list: labels follow the names of the class folders in alphabetical order"
        names = tuple(sorted(present))
        return names, {name: (label, name) for label, name in enumerate(names)}, (note,)
    names = read_class_list(class_list)
    labels = {name: label for label, name in enumerate(names)}
    spelled = {spelling(name): name for name in names}
    folders: dict[str, tuple[int, str]] = {}
    for folder in sorted(present):
        name = folder if folder in labels else spelled.get(spelling(folder))
        if name is None or (name != folder and name in present):
            raise DatasetFormatError(f"{class_list} lacks class {quoted(folder)}, which has a folder; add it")
        folders[folder] = labels[name], name
    return names, folders, ()
