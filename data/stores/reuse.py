"""Clips that earlier caches hold: a data set of which one file has changed is prepared by decoding that file alone.

A cache belongs to one version of a data set. The next version has a cache of its own, into which everything is taken
that a cache of the same form and settings, finished or not, has made of the same bytes: whole shards as links, which
cost no space, and other clips as copies.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import CacheError
from ..index.records import ClipRecord
from .contents import Contents, checksum
from .forms import FORMS, open_store
from .jpeg import DatabaseStore, JpegStore
from .manifest import BEGUN_FILE, Manifest
from .shards import ShardStore, shard_name

if TYPE_CHECKING:
    from ..arrays import Sizes

log = logging.getLogger(__name__)

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


class _Clip(NamedTuple):
    """One clip in an earlier cache."""

    store: ShardStore
    id: str
    checksum: int | None


class EarlierShard(NamedTuple):
    """A file of an earlier cache, with the clips that it holds in their order."""

    file: Path
    clips: tuple[_Clip, ...]

    def sizes(self) -> Sizes:
        """Return the bytes of each frame.

        Raises:
            OSError: the cache was removed meanwhile.
            ValueError: so was its table of sizes.
        """
        return np.concatenate([clip.store.frame_sizes(clip.id) for clip in self.clips])

    def is_sound(self, file: Path) -> bool:
        """Return whether a file, which is a link to this one, still holds the bytes that were written."""
        try:
            with file.open("rb") as stream:
                for clip in self.clips:
                    sizes = clip.store.frame_sizes(clip.id).tolist()
                    if checksum(stream.read(size) for size in sizes) != clip.checksum:
                        return False
        except (OSError, ValueError):
            return False
        return True


class EarlierCaches:
    """The prepared clips of all caches of one form and one preparation, by their content."""

    def __init__(self, caches: Sequence[tuple[ShardStore, Contents]]) -> None:
        self.chosen = any("why" in store.manifest.settings for store, _ in caches)
        """Whether the form of one of them was chosen automatically."""
        self._clips: dict[str, _Clip] = {}
        self._shards: dict[tuple[str, ...], EarlierShard] = {}
        for store, contents in caches:
            made_of, table = contents.made_of, store.manifest
            clips = [_Clip(store, id_, known) for id_, known in zip(table.ids, contents.checksums, strict=True)]
            self._clips |= {made_of[row]: clip for row, clip in enumerate(clips) if clip.checksum is not None}
            if isinstance(store, DatabaseStore):
                continue
            for number, rows in rows_by_shard(table).items():
                shard = EarlierShard(store.folder / shard_name(number), tuple(clips[row] for row in rows))
                if all(clip.checksum is not None for clip in shard.clips):
                    self._shards[tuple(made_of[row] for row in rows)] = shard

    @classmethod
    def beside(cls, folder: Path, form: str, settings: Mapping[str, Any]) -> EarlierCaches:
        """Return what the caches beside the folder of a new one hold.

        Args:
            folder: where the new cache will lie.
            form: a form of frames.
            settings: of the new cache.
        """
        caches = []
        for place in sorted(folder.parent.glob(f"*-{form}")) + sorted(folder.parent.glob(f"*-{form}{UNFINISHED}")):
            if place.name in (folder.name, f"{folder.name}{UNFINISHED}"):
                continue
            try:
                cache = _unfinished(place) if place.name.endswith(UNFINISHED) else _finished(place)
            except (CacheError, OSError, ValueError, IndexError):
                continue  # damaged, of another release, or just being finished or removed
            table = cache[0].manifest
            if table.form == form and _pixels(table.settings) == _pixels(settings):
                caches.append(cache)
        return cls(caches)

    def __contains__(self, content: object) -> bool:
        return content in self._clips

    def frames(self, content: str, shape: tuple[int, int, int]) -> list[bytes] | None:
        """Return the stored bytes of each frame of a clip, None where no cache has it as it was written."""
        if content not in self._clips:
            return None
        clip = self._clips[content]
        try:
            if clip.store.shape(clip.id) != shape:
                return None
            found = list(clip.store.encoded(clip.id))
        except (CacheError, OSError, ValueError):
            return None  # removed meanwhile
        if checksum(found) != clip.checksum:
            log.warning("%r in %s is damaged and is made again", clip.id, clip.store.folder)
            return None
        return found

    def linkable(self, folder: Path) -> frozenset[tuple[str, ...]]:
        """Return the contents of the shards that can be linked into caches in a folder; one of each cache is tried.

        None can where the disk has no hard links, and another user's may be protected (`fs.protected_hardlinks`).
        """
        tried: dict[Path, bool] = {}
        for shard in self._shards.values():
            if shard.file.parent not in tried:
                tried[shard.file.parent] = _can_link(shard.file, folder)
        return frozenset(contents for contents, shard in self._shards.items() if tried[shard.file.parent])

    def shard(self, contents: tuple[str, ...]) -> EarlierShard | None:
        """Return the file that holds just these clips; None without one."""
        return self._shards.get(contents)


def _can_link(file: Path, folder: Path) -> bool:
    link = folder / f"link-{os.getpid()}-{get_ident()}.tried"
    try:
        link.unlink(missing_ok=True)
        os.link(file, link)
        link.unlink()
    except OSError:
        return False
    return True


def rows_by_shard(manifest: Manifest) -> dict[int, list[int]]:
    """Return the rows of the clips of each shard."""
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(manifest.shard):
        rows.setdefault(number, []).append(row)
    return rows


def _pixels(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _OF_ONE_VERSION}


def _finished(folder: Path) -> tuple[ShardStore, Contents]:
    """Return the store of a finished cache, and what it was made of.

    Raises:
        CacheError: it is damaged, or nothing is known of its clips.
    """
    store = open_store(folder)
    return store, Contents.load(folder, len(store))


def _unfinished(folder: Path) -> tuple[ShardStore, Contents]:
    """Return the store of the finished shards of an unfinished cache, and what they were made of.

    Raises:
        CacheError: nothing is known of its clips.
        OSError: it was just finished or removed.
    """
    begun = Manifest.load(folder, BEGUN_FILE)
    made_of = Contents.load(folder, len(begun.ids)).made_of
    checksums: list[int | None] = []
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
        checksums += shard_checksums(folder, number, len(of_shard))
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
        offset=tuple(offset),
        first=tuple(accumulate(n_frames, initial=0))[:-1],
    )
    store = JpegStore if begun.form == "lmdb" else FORMS[begun.form].store
    contents = Contents(made_of=tuple(made_of[row] for row in rows), checksums=tuple(checksums))
    return store(folder, manifest, np.concatenate([*found, np.empty(0, np.uint32)])), contents


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


def shard_checksums(folder: Path, number: int, n_clips: int) -> list[int | None]:
    """Return the CRC of each clip of a shard of an unfinished cache; None of each where a release before wrote it."""
    try:
        found: list[int | None] = np.load(folder / SIZES_FOLDER / checksums_name(number)).tolist()
    except (OSError, ValueError):
        return [None] * n_clips
    return found if len(found) == n_clips else [None] * n_clips


def checksums_name(number: int) -> str:
    """Return the file name of the checksums of an unfinished cache's shard."""
    return f"{number:05d}-crc32.npy"
