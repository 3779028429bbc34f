"""Clips that earlier caches hold: a data set of which one file has changed is prepared by decoding that file alone.

A cache belongs to one version of a data set. The next version has a cache of its own, into which everything is taken
that a cache of the same form and settings, finished or not, has made of the same bytes: whole shards as links, which
cost no space, and other clips as copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CacheError
from ..index.records import ClipRecord
from .forms import FORMS, open_store
from .jpeg import DatabaseStore, JpegStore
from .manifest import BEGUN_FILE, Manifest
from .shards import ShardStore, shard_name

if TYPE_CHECKING:
    from ..arrays import Sizes

UNFINISHED = ".building"
SIZES_FOLDER = "sizes"
_OF_ONE_VERSION = frozenset({"version", "dataset", "why"})
"""Settings in a manifest that do not decide about the pixels of a clip."""


def content_of(clip: ClipRecord, *, with_flow: bool = False) -> str:
    """Return a text that is equal for clips whose prepared frames are equal: not its name, label or split.

    Args:
        with_flow: whether the listed flow is what is prepared.
    """
    measured = clip.measured
    parts: list[object] = [clip.kind, clip.start, clip.end, measured.sha1, measured.turned]
    parts += [measured.n_frames, measured.width, measured.height]
    if with_flow:
        parts += [None if clip.flow is None else clip.flow.bound, measured.flow_sha1]
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


class EarlierCaches:
    """The prepared clips of all caches of one form and one preparation, by their content."""

    def __init__(self, stores: Sequence[ShardStore]) -> None:
        self.chosen = any("why" in store.manifest.settings for store in stores)
        """Whether the form of one of them was chosen automatically."""
        self._clips = {
            content: (store, id_)
            for store in stores
            for content, id_ in zip(store.manifest.content, store.manifest.ids, strict=True)
        }
        self._shards: dict[tuple[str, ...], tuple[ShardStore, int]] = {}
        for store in stores:
            if not isinstance(store, DatabaseStore):
                self._shards |= {contents: (store, number) for number, contents in _by_shard(store.manifest)}

    @classmethod
    def beside(cls, folder: Path, form: str, settings: Mapping[str, Any]) -> EarlierCaches:
        """Return what the caches beside the folder of a new one hold.

        Args:
            folder: where the new cache will lie.
            form: a form of frames.
            settings: of the new cache.
        """
        stores = []
        for place in sorted(folder.parent.glob(f"*-{form}")) + sorted(folder.parent.glob(f"*-{form}{UNFINISHED}")):
            if place.name in (folder.name, f"{folder.name}{UNFINISHED}"):
                continue
            try:
                store = _unfinished(place) if place.name.endswith(UNFINISHED) else open_store(place)
            except (CacheError, OSError, ValueError, IndexError):
                continue  # damaged, of another release, or just being finished or removed
            same_preparation = _pixels(store.manifest.settings) == _pixels(settings)
            if same_preparation and store.manifest.form == form and store.manifest.content:
                stores.append(store)
        return cls(stores)

    def __contains__(self, content: object) -> bool:
        return content in self._clips

    def frames(self, content: str, shape: tuple[int, int, int]) -> list[bytes] | None:
        """Return the stored bytes of each frame of a clip, None where no cache has it."""
        if content not in self._clips:
            return None
        store, id_ = self._clips[content]
        try:
            if store.shape(id_) != shape:
                return None
            return list(store.encoded(id_))
        except (CacheError, OSError, ValueError):
            return None  # removed meanwhile

    def shard(self, contents: tuple[str, ...]) -> tuple[Path, Sizes] | None:
        """Return the file that holds just these clips, and the bytes of each frame; None without such a file."""
        if contents not in self._shards:
            return None
        store, number = self._shards[contents]
        table = store.manifest
        ids = [table.ids[row] for row, at in enumerate(table.shard) if at == number]
        try:
            sizes = np.concatenate([store.frame_sizes(id_) for id_ in ids])
        except (OSError, ValueError):
            return None
        return store.folder / shard_name(number), sizes


def _by_shard(manifest: Manifest) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the number of each shard, and the contents of its clips."""
    for number, rows in rows_by_shard(manifest).items():
        yield number, tuple(manifest.content[row] for row in rows)


def rows_by_shard(manifest: Manifest) -> dict[int, list[int]]:
    """Return the rows of the clips of each shard."""
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(manifest.shard):
        rows.setdefault(number, []).append(row)
    return rows


def _pixels(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _OF_ONE_VERSION}


def _unfinished(folder: Path) -> ShardStore:
    """Return the store of the finished shards of an unfinished cache.

    Raises:
        CacheError: nothing is known of its clips.
        OSError: it was just finished or removed.
    """
    begun = Manifest.load(folder, BEGUN_FILE)
    rows: list[int] = []
    offset: list[int] = []
    found: list[Sizes] = []
    for number, of_shard in rows_by_shard(begun).items():
        sizes = shard_sizes(folder, begun, number, of_shard)
        if sizes is None:
            continue
        ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        firsts = accumulate((begun.n_frames[row] for row in of_shard[:-1]), initial=0)
        offset += [int(ends[first]) for first in firsts]
        rows += of_shard
        found.append(sizes)
    n_frames = tuple(begun.n_frames[row] for row in rows)
    manifest = replace(
        begun,
        ids=tuple(begun.ids[row] for row in rows),
        n_frames=n_frames,
        height=tuple(begun.height[row] for row in rows),
        width=tuple(begun.width[row] for row in rows),
        shard=tuple(begun.shard[row] for row in rows),
        content=tuple(begun.content[row] for row in rows),
        offset=tuple(offset),
        first=tuple(accumulate(n_frames, initial=0))[:-1],
    )
    store = JpegStore if begun.form == "lmdb" else FORMS[begun.form].store
    return store(folder, manifest, np.concatenate([*found, np.empty(0, np.uint32)]))


def shard_sizes(folder: Path, begun: Manifest, number: int, rows: Sequence[int]) -> Sizes | None:
    """Return the bytes of each frame of a shard of an unfinished cache; None if it is not whole.

    Args:
        rows: of its clips, in the manifest.
    """
    frame_bytes = FORMS[begun.form].frame_bytes
    try:
        if frame_bytes is None:
            sizes = np.asarray(np.load(folder / SIZES_FOLDER / f"{number:05d}.npy"), np.uint32)
        else:
            each = [frame_bytes(begun.height[row], begun.width[row], begun.channels) for row in rows]
            sizes = np.repeat(np.array(each, np.uint32), [begun.n_frames[row] for row in rows])
        n_bytes = (folder / shard_name(number)).stat().st_size
    except (OSError, ValueError):
        return None  # not begun, or incomplete after a crash of the machine
    whole = len(sizes) == sum(begun.n_frames[row] for row in rows) and n_bytes == int(sizes.sum(dtype=np.int64))
    return sizes if whole else None
