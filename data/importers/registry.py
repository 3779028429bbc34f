"""The registry of layouts, by the names used in specifications, and how a layout is recognised."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..errors import DatasetError, DatasetFormatError, DatasetNotFoundError, UnknownDatasetError
from ..index.listing import Listing, folders_below, is_file, read_json, require_folder
from ..reading.media import media_below
from . import (
    activitynet,
    annot_json,
    class_folders,
    frame_lists,
    frame_lmdb,
    hmdb51,
    image_folders,
    kinetics,
    parquet,
    path_lists,
    something,
    ucf101,
    videofolder,
    webdataset,
)
from .unread import unread_lists

Importer = Callable[[Path], Listing]

AUTO = "auto"
"""The name that stands for recognising the layout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The functions that read and recognise one layout."""

    read: Importer
    recognise: Callable[[Path], bool]
    """Returns whether a folder seems to be in this layout, from names and the first lines of lists."""


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "ucf101": Layout(read=ucf101.read_ucf101, recognise=ucf101.is_ucf101),
        "hmdb51": Layout(read=hmdb51.read_hmdb51, recognise=hmdb51.is_hmdb51),
        "training_validation": Layout(
            read=class_folders.read_training_validation, recognise=class_folders.is_training_validation
        ),
        "annot_json": Layout(read=annot_json.read_annot_json, recognise=annot_json.is_annot_json),
        "kinetics": Layout(read=kinetics.read_kinetics, recognise=kinetics.is_kinetics),
        "activitynet": Layout(read=activitynet.read_activitynet, recognise=activitynet.is_activitynet),
        "something": Layout(read=something.read_something, recognise=something.is_something),
        "frame_lists": Layout(read=frame_lists.read_frame_lists, recognise=frame_lists.is_frame_lists),
        "path_lists": Layout(read=path_lists.read_path_lists, recognise=path_lists.is_path_lists),
        "lmdb": Layout(read=frame_lmdb.read_frame_lmdb, recognise=frame_lmdb.is_frame_lmdb),
        "webdataset": Layout(read=webdataset.read_webdataset, recognise=webdataset.is_webdataset),
        "videofolder": Layout(read=videofolder.read_videofolder, recognise=videofolder.is_videofolder),
        "parquet": Layout(read=parquet.read_parquet, recognise=parquet.is_parquet),
        "class_folders": Layout(read=class_folders.read_class_folders, recognise=class_folders.is_class_folders),
        "image_folders": Layout(read=image_folders.read_image_folders, recognise=image_folders.is_image_folders),
    }
)

_HINT_DEPTH = 2
"""Levels of folders in which a layout is looked for, where the root has none."""

WITHOUT_LISTS = ("training_validation", "class_folders", "image_folders")

IMPORTERS: Mapping[str, Importer] = MappingProxyType({name: layout.read for name, layout in LAYOUTS.items()})


def importer(name: str) -> Importer:
    """Return the importer called `name`.

    Raises:
        UnknownDatasetError: no importer has this name.
    """
    try:
        return IMPORTERS[name]
    except KeyError:
        known = ", ".join(sorted(IMPORTERS))
        raise UnknownDatasetError(f"no data set layout is called {name!r}; known: {AUTO}, {known}") from None


def recognise(root: Path) -> str:
    """Return the name of the layout of `root`.

    A layout without lists counts only if no layout with lists is recognised.

    Raises:
        DatasetNotFoundError: the folder does not exist, or is in no known layout.
        DatasetFormatError: it is in several layouts; the message names them.
    """
    require_folder(root)
    with_lists = [name for name in LAYOUTS if name not in WITHOUT_LISTS]
    found = [name for name in with_lists if _is(name, root)] or [name for name in WITHOUT_LISTS if _is(name, root)]
    if not found:
        raise DatasetNotFoundError(f"{root} is not in a known layout{_hint(root)}")
    if found[0] in WITHOUT_LISTS:
        _require_all_lists_read(root)
    if len(found) > 1:
        raise DatasetFormatError(f"{root} can be read as {' and as '.join(found)}: name the right layout")
    return found[0]


def _hint(root: Path) -> str:
    """Return the end of a sentence: where a layout or a clip is found instead, or what to try.

    Raises:
        DatasetFormatError: there are lists, which no layout reads.
    """
    below = list(folders_below(root, _HINT_DEPTH))
    with_lists = [name for name in LAYOUTS if name not in WITHOUT_LISTS]
    listed = next(((folder, name) for folder in below for name in with_lists if _is(name, folder)), None)
    if listed is None:
        _require_all_lists_read(root)
        inner = [folder for folder in below if folder.parent == root]
        # A folder among others that holds folders of clips is a class of a deeper layout, not a data set.
        listed = next(((inner[0], name) for name in WITHOUT_LISTS if len(inner) == 1 and _is(name, inner[0])), None)
    if listed is not None:
        return f", but {listed[0]} is, as {listed[1]}: give that folder"
    known = ", ".join(LAYOUTS)
    clip = next(media_below(root), None)
    there = f"; its first clip is {clip.path}, and clips on no list must be <class>/<clip>" if clip else ""
    return f"{there}: name the layout that it should have to see what is missing: {known}"


def _is(name: str, root: Path) -> bool:
    try:
        return LAYOUTS[name].recognise(root)
    except DatasetFormatError:
        # Lists that contradict this layout may be valid in another. Naming the layout shows the error.
        return False


def _require_all_lists_read(root: Path) -> None:
    """Check that no list lies beside class folders: without it, clips of its test side would be trained on."""
    unread = unread_lists(root)
    if not unread:
        return
    empty = next((path for path in unread if is_file(path) and path.stat().st_size == 0), None)
    why = "is empty" if empty else f"cannot be read ({_why_unread(root, unread[0])})"
    raise DatasetFormatError(
        f"{empty or unread[0]} looks like a list of clips but {why}: mend it, or name the layout class_folders or "
        "training_validation to leave it out"
    )


def _why_unread(root: Path, path: Path) -> str:
    """Return why a list cannot be read: what the layout says that gets the furthest."""
    if path.suffix.lower() == ".json":
        try:
            read_json(path)
        except DatasetFormatError as error:
            return str(error)
    reasons = []
    for name, layout in LAYOUTS.items():
        if name not in WITHOUT_LISTS:
            try:
                layout.read(root)
            except DatasetError as error:
                reasons.append(str(error))
    # A reason that only names the root is that of a layout which this list has nothing to do with.
    places = dict.fromkeys((path, path.name, *(place for place in [path.parent] if place != root)))
    near = [
        reason
        for place in places
        for reason in reasons
        if re.search(rf"(?<![\w-]){re.escape(str(place))}(?![\w.-])", reason)
    ]
    return near[0] if near else "its form is not known; write train.txt and test.txt with a path and a label per line"


def lists_left_out(name: str, root: Path, read: Collection[Path]) -> tuple[str, ...]:
    """Return a note on the lists that a layout does not read.

    Args:
        read: what it has read.
    """
    unread = [path for path in unread_lists(root) if path not in read]
    if not unread:
        return ()
    return (f"{len(unread)} files look like lists of clips and are not read as {name}, e.g. {unread[0]}",)


def resolved(name: str, root: Path) -> str:
    """Return `name`, or the name of the layout of `root` if it is `auto`.

    Raises:
        UnknownDatasetError: no layout has this name.
        DatasetError: see `recognise`.
    """
    if name == AUTO:
        return recognise(root)
    importer(name)
    return name
