"""Packing shards of JPEG images into one LMDB, always in the same order, so that its bytes are the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import numpy as np

from ..errors import InvalidSpecError
from ..reading.lmdb_frames import META_KEY, encode_key
from .jpeg import DATABASE_FILE, frame_key
from .manifest import Manifest
from .shards import shard_name

if TYPE_CHECKING:
    from ..arrays import Sizes

_MAX_KEY_BYTES = 511
PAGE_BYTES = 4096
_BATCH_CLIPS = 64
_KEY_DIGITS = 5
_LARGEST_INLINE = 2000
_NODE_BYTES = 80
"""Approximate bytes of a frame's key and LMDB's overhead for it."""


def pack_database(folder: Path, manifest: Manifest, sizes: Sizes, meta: Mapping[str, Any]) -> None:
    """Write the frames of all shards of `folder` and `meta` into `data.mdb` there.

    Raises:
        InvalidSpecError: the id of a clip is too long for a key.
    """
    aside = folder / "packing"
    shutil.rmtree(aside, ignore_errors=True)
    # Ascending keys fill their pages; numbers with more digits than %05d are not ascending.
    ascending = max(manifest.n_frames, default=0) < 10**_KEY_DIGITS
    with lmdb.open(str(aside), map_size=_map_bytes(sizes, meta, manifest), sync=False) as database:
        rows = sorted(range(len(manifest.ids)), key=lambda row: encode_key(frame_key(manifest.ids[row], 0)))
        for start in range(0, len(rows), _BATCH_CLIPS):
            with database.begin(write=True) as transaction:
                for row in rows[start : start + _BATCH_CLIPS]:
                    for key, image in _images(folder, manifest, sizes, row):
                        transaction.put(key, image, append=ascending)
        with database.begin(write=True) as transaction:
            transaction.put(encode_key(META_KEY), json.dumps(meta, sort_keys=True).encode())
        database.sync(True)
    os.replace(aside / DATABASE_FILE, folder / DATABASE_FILE)
    shutil.rmtree(aside)


def _images(folder: Path, manifest: Manifest, sizes: Sizes, row: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the key and the bytes of each frame of one clip."""
    id_, first = manifest.ids[row], manifest.first[row]
    lengths = sizes[first : first + manifest.n_frames[row]]
    if len(encode_key(frame_key(id_, len(lengths)))) > _MAX_KEY_BYTES:
        raise InvalidSpecError(f"the id {id_[:40]!r}... is too long for a key of an LMDB: choose the store jpeg")
    with (folder / shard_name(manifest.shard[row])).open("rb") as shard:
        shard.seek(manifest.offset[row])
        for index, length in enumerate(lengths):
            yield encode_key(frame_key(id_, index)), shard.read(int(length))


def _map_bytes(sizes: Sizes, meta: Mapping[str, Any], manifest: Manifest) -> int:
    """Return an upper bound of the database's size: values fill whole pages, and old copies of pages remain a while."""
    pages = int((sizes.astype(np.int64) // PAGE_BYTES + 2).sum())
    keys = sum(len(encode_key(id_)) + 64 for id_ in manifest.ids) * 4
    return pages * PAGE_BYTES + 2 * len(json.dumps(meta)) + keys + (64 << 20)


def database_bytes(n_frames: int, frame_bytes: float) -> int:
    """Return the approximate size of an LMDB of images: small images share pages, large ones fill whole pages."""
    if n_frames == 0 or frame_bytes > _LARGEST_INLINE:
        return int(n_frames * (frame_bytes + PAGE_BYTES / 2 + _NODE_BYTES))
    per_page = max(2, int(PAGE_BYTES // (frame_bytes + _NODE_BYTES)))
    return n_frames * PAGE_BYTES // per_page
