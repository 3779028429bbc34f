"""The registry of layouts, by the names used in specifications, and how a layout is recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..errors import DatasetError, DatasetFormatError, DatasetNotFoundError, UnknownDatasetError
from ..index.listing import Listing, read_json, require_folder
from . import (
    activitynet,
    annot_json,
    class_folders,
    frame_lists,
    frame_lmdb,
    hmdb51,
    kinetics,
    path_lists,
    something,
    ucf101,
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
        "class_folders": Layout(read=class_folders.read_class_folders, recognise=class_folders.is_class_folders),
    }
)

_WITHOUT_LISTS = ("training_validation", "class_folders")

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
    with_lists = [name for name in LAYOUTS if name not in _WITHOUT_LISTS]
    found = [name for name in with_lists if _is(name, root)] or [name for name in _WITHOUT_LISTS if _is(name, root)]
    if not found:
        known = ", ".join(LAYOUTS)
        raise DatasetNotFoundError(
            f"{root} is not in a known layout: name the layout that it should have to see what is missing: {known}"
        )
    if found[0] in _WITHOUT_LISTS:
        _require_all_lists_read(root)
    if len(found) > 1:
        raise DatasetFormatError(f"{root} can be read as {' and as '.join(found)}: name the right layout")
    return found[0]


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
    reasons = []
    for name, layout in LAYOUTS.items():
        if name not in _WITHOUT_LISTS:
            try:
                layout.read(root)
            except DatasetError as error:
                reasons.append(str(error))
    if unread[0].suffix.lower() == ".json":
        try:
            read_json(unread[0])
        except DatasetFormatError as error:
            reasons = [str(error)]
    # A reason that only names the root is that of a layout which this list has nothing to do with.
    places = dict.fromkeys((unread[0], *(place for place in [unread[0].parent] if place != root)))
    near = [reason for place in places for reason in reasons if str(place) in reason]
    raise DatasetFormatError(
        f"{unread[0]} looks like a list of clips but cannot be read ({near[0] if near else 'its form is not known'}): "
        "mend it, or name the layout class_folders or training_validation to leave it out"
    )


def lists_left_out(name: str, root: Path) -> tuple[str, ...]:
    """Return a note on the lists that a layout without lists does not read."""
    unread = unread_lists(root) if name in _WITHOUT_LISTS else []
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
