"""Class folders of images, with or without folders for the sides above them, as torchvision's ImageFolder reads them.

    <Class>/picture.jpg                          an image; deeper folders belong to the class that they lie in
    train/<Class>/...                            the same with the sides as folders: `train` or `training`,
    val/<Class>/...                              `val`, `valid` or `validation`, `test` or `testing`

The class folders are in the root, or in `images/`. Everything below a class folder counts that has the suffix of an
image, GIFs among them; of an animated image the first one. Labels follow a class list or the names of the folders, as
in `class_folders`. This layout is named, never recognised: with the same files, `class_folders` takes a folder of
pictures for the frames of a video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from ..errors import DatasetNotFoundError
from ..index.groups import source_group
from ..index.listing import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Listing,
    entries_of,
    find_folder,
    is_closed,
    is_folder,
    official_sides,
    require_folder,
    suffix_of,
)
from ..index.records import ListedClip, Subset
from .class_folders import SIDES, class_names

SUFFIXES = IMAGE_SUFFIXES | {".gif"}
_MOST_KINDS = 6


@dataclass(slots=True)
class _Found:
    """What lies below the class folders."""

    images: dict[str, list[str]] = field(default_factory=dict)
    """Paths below the root, by class folder."""
    loose: list[str] = field(default_factory=list)
    """Images beside the class folders."""
    others: list[str] = field(default_factory=list)
    """Files that are no images, by their suffix."""
    closed: list[str] = field(default_factory=list)
    """Links that lead nowhere, links to folders, and folders that may not be read."""
    empty: list[str] = field(default_factory=list)


def read_image_folders(root: Path) -> Listing:
    """Return every image below the class folders, of split 1.

    With folders of sides, the validation folder is the sealed official test list, unless there is a test folder too.
    Without them, all are train clips, and no test list exists.

    Raises:
        DatasetNotFoundError: there is no class folder with images.
        DatasetFormatError: a class list lacks a folder's name.
    """
    require_folder(root)
    sides, notes = _side_folders(root)
    if not sides:
        images = find_folder(root, "images")
        sides = {root if images is None or not _found(images, root).images else images: "train"}
    by_side = {folder: _found(folder, root) for folder in sides}
    present = {name for found in by_side.values() for name in found.images}
    if not present:
        raise DatasetNotFoundError(f"{root} has no class folders with images; put some there")
    names, labels, remarks = class_names(root, present)
    clips = [
        clip
        for folder, side in sides.items()
        for clip in _clips(by_side[folder], labels, side, folder.relative_to(root), is_one_of_several=len(sides) > 1)
    ]
    unused = tuple(note for folder, found in by_side.items() for note in _notes(folder, found))
    return Listing(class_names=names, clips=tuple(clips), notes=(*notes, *remarks, *unused))


def is_image_folders(_: Path) -> bool:
    """Return False: the same files are `class_folders`, whose clips may be videos."""
    return False


def _side_folders(root: Path) -> tuple[dict[Path, Subset], tuple[str, ...]]:
    """Return the folders of sides that hold class folders with images, and notes; none without a train folder."""
    found: dict[str, Path] = {}
    for side, names in SIDES.items():
        for name in names:
            folder = find_folder(root, name)
            if side not in found and folder is not None and _found(folder, root).images:
                found[side] = folder
    if "train" not in found:
        return {}, ()
    sides, notes = official_sides(found)
    return {folder: sides[side] for side, folder in found.items()}, notes


def _found(folder: Path, root: Path) -> _Found:
    found = _Found()
    for entry in entries_of(folder):
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if not is_folder(entry):
            if suffix_of(entry.name) in SUFFIXES:
                found.loose.append(entry.name)
            continue
        if images := sorted(_below(path, path.relative_to(root).as_posix(), found)):
            found.images[entry.name] = images
        else:
            found.empty.append(entry.name)
    return found


def _below(folder: Path, path: str, found: _Found) -> Iterator[str]:
    """Yield the paths of the images below a folder, and note what else is there."""
    for entry in entries_of(folder):
        inner = f"{path}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if is_closed(entry) or (is_folder(entry) and entry.is_symlink()):  # a link may lead in a circle
            found.closed.append(inner)
        elif is_folder(entry):
            yield from _below(Path(entry.path), inner, found)
        elif suffix_of(entry.name) in SUFFIXES:
            yield inner
        else:
            found.others.append(inner)


def _clips(
    found: _Found, labels: dict[str, tuple[int, str]], side: Subset, place: PurePath, *, is_one_of_several: bool
) -> Iterator[ListedClip]:
    """Yield the images of a folder of classes that lies at `place` below the root; one of several is part of ids."""
    prefix = f"{place.name}/" if is_one_of_several else ""
    for folder, paths in found.images.items():
        label, class_name = labels[folder]
        inside = {path: prefix + PurePosixPath(path).relative_to(place).as_posix() for path in paths}
        stems, names = Counter(_stem(name) for name in inside.values()), set(inside.values())
        for path, name in inside.items():
            # `a.jpg` and `a.png` of one folder are two images, and so are `a.jpg` and `a.jpg.png`.
            id_ = _stem(name) if stems[_stem(name)] == 1 and _stem(name) not in names else name
            yield ListedClip(
                id=id_,
                path=path,
                kind="image",
                label=label,
                class_name=class_name,
                group=source_group(class_name, PurePosixPath(path).stem) or id_,
                official=((1, side),),
            )


def _stem(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def _notes(folder: Path, found: _Found) -> Iterator[str]:
    """Yield a note on each kind of thing that is there and is no image of a class."""
    if found.others:
        kinds = ", ".join(sorted({suffix_of(path) or "no suffix" for path in found.others})[:_MOST_KINDS])
        yield f"{len(found.others)} other files are not used ({kinds}), e.g. {found.others[0]}"
    if videos := [path for path in found.others if suffix_of(path) in VIDEO_SUFFIXES]:
        yield f"{len(videos)} videos lie among the images, which an image data set does not use, e.g. {videos[0]}"
    if found.closed:
        yield (
            f"{len(found.closed)} links to nowhere or to folders, and folders that may not be read, are left out, e.g. "
            f"{found.closed[0]}"
        )
    if found.empty:
        yield f"{len(found.empty)} folders hold no images and are no classes, e.g. {found.empty[0]} of {folder}"
    if found.loose:
        yield f"{len(found.loose)} images lie in no class folder and are not used, e.g. {found.loose[0]} of {folder}"
