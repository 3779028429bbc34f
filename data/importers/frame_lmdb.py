"""Our own LMDB of JPEG frames: a whole data set, with its labels and lists, in one file.

    <id>/00001                                   JPEG bytes of a frame
    __meta__                                     JSON: {"format": "video-hpo frames", "version": 1,
                                                  "class_names": [name, ...],
                                                  "clips": [{"id": id, "label": 0, "n_frames": 130,
                                                             "group": "g01", "official": [[1, "train"]]}, ...]}

`other_labels`, `group` and `official` may be left out: a clip is then its own group, on the train list of split 1.
The database is the root itself, a folder `*.lmdb` in it, or a file `*.lmdb`.

Databases of IBM's action-recognition-pytorch are read by `clip_lmdb`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import DatasetFormatError, DatasetNotFoundError, VideoError
from ..index.label_maps import checked_names
from ..index.listing import Listing, require_folder
from ..index.records import ListedClip
from . import frame_lists

FORMAT = "video-hpo frames"
VERSION = 1
_KEYS_KEY = "__keys__"
_SUBSETS = ("train", "validation", "test")


def read_frame_lmdb(root: Path) -> Listing:
    """Return the clips that the database's `__meta__` describes.

    Raises:
        DatasetNotFoundError: there is no LMDB.
        DatasetFormatError: it is another kind of LMDB, or its `__meta__` is not valid.
    """
    require_folder(root)
    found = _find(root)
    if not found:
        raise DatasetNotFoundError(f"{root} holds no LMDB: neither data.mdb nor a *.lmdb; give the folder of one")
    if all(map(_holds_clips, found)):
        from .clip_lmdb import read_clip_lmdbs  # the other importers must not need LMDB

        return read_clip_lmdbs(root, found)
    read = {path: _read_meta(path) for path in found}
    if len(read) > 1:
        raise DatasetFormatError(f"{root} holds several LMDBs, {found[0].name} and {found[1].name}; give one")
    path, meta = next(iter(read.items()))
    return _listing(path, path.relative_to(root).as_posix(), meta)


def is_frame_lmdb(root: Path) -> bool:
    """Return whether there is an LMDB, ours or not; one beside the frames that it was made of does not count."""
    return bool(_find(root)) and not frame_lists.is_frame_lists(root)


def _find(root: Path) -> list[Path]:
    if (root / "data.mdb").is_file():
        return [root]
    return sorted(path for path in root.glob("*.lmdb") if path.is_file() or (path / "data.mdb").is_file())


def _holds_clips(path: Path) -> bool:
    """Return whether a database is one of IBM's, with a clip in each value."""
    from ..reading.lmdb_frames import META_KEY, find_value  # the other importers must not need LMDB

    try:
        return find_value(path, META_KEY) is None and find_value(path, _KEYS_KEY) is not None
    except VideoError as error:
        raise DatasetFormatError(str(error)) from None


def _read_meta(path: Path) -> dict[str, Any]:
    from ..reading.lmdb_frames import META_KEY, find_value  # the other importers must not need LMDB

    try:
        raw = find_value(path, META_KEY)
    except VideoError as error:
        raise DatasetFormatError(str(error)) from None
    if raw is None:
        raise DatasetFormatError(f"{path} has no __meta__; it was not written by `hpo data prepare --store lmdb`")
    try:
        meta = json.loads(raw)
    except ValueError as error:
        raise DatasetFormatError(f"{path}: __meta__ is not JSON ({error}); prepare it again") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT or meta.get("version") != VERSION:
        raise DatasetFormatError(f"{path}: __meta__ is not that of {FORMAT!r}, version {VERSION}; prepare it again")
    return meta


def _listing(path: Path, relative: str, meta: dict[str, Any]) -> Listing:
    try:
        class_names = checked_names(path, [str(name) for name in meta["class_names"]])
        clips = tuple(_clip(relative, entry, class_names) for entry in meta["clips"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DatasetFormatError(f"{path}: __meta__ is incomplete ({error!r}); prepare it again") from None
    return Listing(class_names=class_names, clips=clips)


def _clip(path: str, entry: dict[str, Any], class_names: tuple[str, ...]) -> ListedClip:
    id_, label = str(entry["id"]), int(entry["label"])
    others = tuple(int(other) for other in entry.get("other_labels", ()))
    if not all(0 <= number < len(class_names) for number in (label, *others)):
        raise IndexError(f"label of {id_} is beyond the {len(class_names)} classes")
    official = tuple((int(number), subset) for number, subset in entry.get("official", [[1, "train"]]))
    if not all(subset in _SUBSETS for _, subset in official):
        raise ValueError(f"{id_} is on a side that is not one of {_SUBSETS}")
    return ListedClip(
        id=id_,
        path=path,
        kind="lmdb",
        frame_name=f"{id_.replace('%', '%%')}/%05d",
        label=label,
        other_labels=others,
        class_name=class_names[label],
        group=str(entry.get("group", id_)),
        official=official,
    )
