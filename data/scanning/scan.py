"""Scanning a data set: recognising its layout, listing its clips and decoding each of them once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

from ..errors import CacheError, DatasetFormatError, DatasetNotFoundError
from ..importers.registry import AUTO, WITHOUT_LISTS, importer, lists_left_out, resolved
from ..index.file import write_index
from ..index.groups import regroup
from ..index.listing import Listing, files_read
from ..index.records import INDEX_FORMAT, ClipRecord, Index, ListedClip, Measurement, make_index
from ..progress import Progress


def scan(
    root: str | Path,
    *,
    name: str = AUTO,
    group_pattern: str | None = None,
    memory: Path | None = None,
    progress: Progress | None = None,
    every_byte: bool = False,
) -> Index:
    """Return the index of a data set, decoding every clip once.

    Args:
        root: the data set's folder.
        name: its layout, see `importers.registry.LAYOUTS`; `auto` recognises it.
        group_pattern: see `groups.regroup`.
        memory: file with the results of earlier scans, so that only new clips are decoded.
        every_byte: whether to notice files that changed without another size or time; reads all of them.

    Raises:
        DatasetError: the folder cannot be read in this layout. A broken video is not an error: it is
            in the index with its status.
    """
    from .measure import Measurements, measure_all  # imports FFmpeg

    root = Path(root).expanduser()
    name, listing = read_listing(root, name, group_pattern, every_list=every_byte)
    sound = [clip for clip in listing.clips if clip.id not in listing.problems]
    measured = measure_all(root, sound, Measurements(memory), progress=progress, every_byte=every_byte)
    measured |= {id_: Measurement(status="corrupt", note=note) for id_, note in listing.problems.items()}
    inherited = [field.name for field in fields(ListedClip)]
    clips = [
        ClipRecord(**{key: getattr(clip, key) for key in inherited}, measured=measured[clip.id])
        for clip in listing.clips
    ]
    return make_index(name=name, class_names=listing.class_names, clips=clips, notes=listing.notes)


def scan_into(
    cache_dir: Path,
    root: str | Path,
    *,
    name: str = AUTO,
    group_pattern: str | None = None,
    progress: Progress | None = None,
    every_byte: bool = False,
) -> Index:
    """Return the index of a data set, using the scan results that all users of `cache_dir` share; see `scan`.

    Raises:
        CacheError: the folder cannot be made or written to.
        DatasetError: see `scan`.
    """
    root = Path(root).expanduser()
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        return scan(
            root,
            name=name,
            group_pattern=group_pattern,
            memory=cache_dir / f"scan-{key}.jsonl",
            progress=progress,
            every_byte=every_byte,
        )
    except OSError as error:
        raise CacheError(f"{cache_dir} cannot be used for the cache: {error}") from error


def read_listing(
    root: Path, name: str, group_pattern: str | None = None, *, every_list: bool = False
) -> tuple[str, Listing]:
    """Return the layout of a data set (recognised if `name` is `auto`) and the clips that it lists.

    Args:
        every_list: whether to look for lists that a layout with lists does not read; takes as long as reading all
            folders. Beside class folders they are always looked for.

    Raises:
        DatasetError: the folder cannot be read in this layout.
    """
    root, asked = root.expanduser(), name
    try:
        name = resolved(name, root)
        with files_read() as read:
            listing = importer(name)(root)
    except OSError as error:
        raise DatasetNotFoundError(f"{root} cannot be read: {error}") from error
    _require_text(root, listing)
    if every_list or (name in WITHOUT_LISTS and asked != AUTO):  # which has found that none is left out there
        listing = replace(listing, notes=(*listing.notes, *lists_left_out(name, root, read)))
    return name, listing if group_pattern is None else regroup(listing, group_pattern)


def _require_text(root: Path, listing: Listing) -> None:
    """Check that all names can be written as UTF-8, so that lists, databases and JSON files can hold them."""
    for name in (*listing.class_names, *(name for clip in listing.clips for name in (clip.id, clip.path))):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DatasetFormatError(f"{root} holds a name that is not UTF-8, {name!a}; rename it") from None


def write_scan(index: Index, folder: Path) -> None:
    """Write `index.json`, and the readable `labels.json` (number to name) and `meta.json`.

    Raises:
        CacheError: the folder cannot be written to.
    """
    meta = {
        "layout": index.name,
        "version": index.hash,
        "index_format": INDEX_FORMAT,
        "clips": len(index.clips),
        "status": index.status_counts(),
        "kinds": Counter(clip.kind for clip in index.clips),
        "splits": index.splits,
        "notes": index.notes,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "labels.json", dict(enumerate(index.class_names)))
        _write_json(folder / "meta.json", meta)
        write_index(index, folder / "index.json")
    except OSError as error:
        raise CacheError(f"{folder} cannot be written to: {error}") from error


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
