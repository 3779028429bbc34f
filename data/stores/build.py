"""Building a cache in parallel; a build that was killed at any moment resumes, and always gives the same bytes.

    <folder>.building/
        shard-00000.bin         finished: flushed to the disk, then renamed
        shard-00001.bin.part    being written; begun again after a kill
        sizes/00000.npy         bytes of each frame of a finished shard, for forms in which they vary
        sizes/00000-crc32.npy   checksum of each clip of a finished shard
        begun.json              the clips and their shards, for caches of other versions of the data set
        contents.json           what the clips are made of; in the end with their checksums
        manifest.json           written last: after it the folder is only renamed

A shard holds consecutive clips. The index alone determines which, so a killed build can resume, and two machines build
the same files. Clips that the cache of another version of the data set holds already are not decoded (`reuse`).
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CacheError
from ..index.records import ClipRecord
from ..parallel import in_threads
from ..progress import Progress
from .contents import CONTENTS_FILE, Contents
from .database import pack_database
from .forms import FORMS
from .manifest import BEGUN_FILE, MANIFEST_FILE, Manifest
from .reuse import (
    SIZES_FOLDER,
    UNFINISHED,
    EarlierCaches,
    EarlierShard,
    checksums_name,
    shard_checksums,
    shard_sizes,
)
from .shards import SIZES_FILE, shard_name

if TYPE_CHECKING:
    from ..arrays import ByteArray, Sizes

SHARD_BYTES = 16 << 20
"""Decoded bytes per shard: so few that a kill loses little work, and small sets are built on all cores.

The clips of a shard depend on this and on `MAX_SHARDS`: changing one of them needs another `CACHE_FORMAT`.
"""
MAX_SHARDS = 2048
SPARE_BYTES = 64 << 20
"""Bytes that must stay free on the disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The frames that a cache is made of, independent of its form."""

    clips: Sequence[ClipRecord]
    channels: int
    shape: Callable[[ClipRecord], tuple[int, int, int]]
    """Returns (frames, height, width) of a clip before it is decoded."""
    frames: Callable[[ClipRecord], Iterator[ByteArray]]
    """Yields the frames of a clip, (H, W, channels)."""
    content: Callable[[ClipRecord], str]
    """Returns what the frames of a clip are made of: equal for clips with equal frames."""
    changed: Callable[[Sequence[ClipRecord]], Iterable[ClipRecord]]
    """Returns which of some clips lie in other bytes by now than were measured, after reading all of them."""
    stage: str = "prepare"
    """Name of the step in progress reports."""

    def decoded_bytes(self, clip: ClipRecord) -> int:
        """Return the bytes of a clip's decoded frames."""
        n_frames, height, width = self.shape(clip)
        return n_frames * height * width * self.channels


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Consecutive clips in one file."""

    number: int
    clips: tuple[ClipRecord, ...]
    first: int
    """Row of its first clip."""

    @property
    def rows(self) -> range:
        return range(self.first, self.first + len(self.clips))


def plan_shards(recipe: Recipe) -> list[Shard]:
    """Return the shards with their clips."""
    sizes = [recipe.decoded_bytes(clip) for clip in recipe.clips]
    limit = max(SHARD_BYTES, sum(sizes) // MAX_SHARDS)
    shards: list[list[ClipRecord]] = []
    filled = limit
    for clip, size in zip(recipe.clips, sizes, strict=True):
        if filled >= limit or (filled and filled + size > limit):
            shards.append([])
            filled = 0
        shards[-1].append(clip)
        filled += size
    firsts = accumulate(map(len, shards), initial=0)
    return [
        Shard(number=number, clips=tuple(clips), first=first)
        for number, (clips, first) in enumerate(zip(shards, firsts, strict=False))
    ]


class Build:
    """Builds one cache; the caller holds its lock."""

    def __init__(
        self, recipe: Recipe, form: str, folder: Path, settings: Mapping[str, Any], earlier: EarlierCaches
    ) -> None:
        self._recipe = recipe
        self._earlier = earlier
        self._form = FORMS[form]
        self._name = form
        self._folder = folder
        self._settings = settings
        self._aside = building_folder(folder)
        self._sizes = self._aside / SIZES_FOLDER
        self._shards = plan_shards(recipe)
        self._begun = self._begin()
        self._made_of = tuple(recipe.content(clip) for clip in recipe.clips)
        self._report_lock = Lock()
        self._done = 0

    def begin(self, estimate: int, progress: Progress | None = None) -> None:
        """Take over what earlier caches have.

        Args:
            estimate: expected bytes of the cache, which must be free on the disk.
            progress: called with ("reuse", clips looked at, clips of all earlier shards).

        Raises:
            CacheError: the disk is too small; then nothing new is left on it.
        """
        if self._is_complete():
            return
        is_new = not self._aside.exists()
        self._sizes.mkdir(parents=True, exist_ok=True)
        if not ((self._aside / BEGUN_FILE).is_file() and (self._aside / CONTENTS_FILE).is_file()):
            self._begun.save(self._aside, BEGUN_FILE)
            Contents(made_of=self._made_of, checksums=(None,) * len(self._made_of)).save(self._aside)
        self._link_shards(progress)
        try:
            self._require_space(estimate)
        except CacheError:
            if is_new:
                shutil.rmtree(self._aside)
            raise

    def run(self, progress: Progress | None, *, meta: Mapping[str, Any] | None = None) -> None:
        """Build the shards that are missing after `begin`, and give the folder its final name.

        Args:
            meta: description to store in an LMDB.

        Raises:
            CacheError: a clip has changed since it was measured.
            VideoError: a clip cannot be decoded any more.
        """
        if not self._is_complete():
            self._fill(progress)
            self._finish(meta)
        self._tidy()
        self._aside.rename(self._folder)

    def _is_complete(self) -> bool:
        return (self._aside / MANIFEST_FILE).is_file()

    def _require_space(self, estimate: int) -> None:
        there = sum(file.stat().st_size for file in self._aside.rglob("*") if file.is_file())
        # While an LMDB is filled, the shards that it is made of still exist.
        needed = estimate * (2 if self._name == "lmdb" else 1) - there
        free = shutil.disk_usage(self._folder.parent).free
        if needed + SPARE_BYTES > free:
            raise CacheError(
                f"the frames need {needed / 1e9:.1f} GB as {self._name} but {self._folder.parent} has "
                f"{free / 1e9:.1f} GB free; free some, lower short_side, or choose another store"
            )

    def _fill(self, progress: Progress | None) -> None:
        todo = [shard for shard in self._shards if not self._is_done(shard)]
        self._done = len(self._recipe.clips) - sum(len(shard.clips) for shard in todo)
        for _ in in_threads(lambda shard: self._write(shard, progress), todo):
            pass

    def _link_shards(self, progress: Progress | None) -> None:
        """Take whole shards from earlier caches, which nobody writes to any more."""
        known = [(shard, self._earlier.shard(self._made_of_shard(shard))) for shard in self._shards]
        there = [(shard, same) for shard, same in known if same is not None and not self._is_done(shard)]
        if not there:
            return
        done, total = 0, sum(len(shard.clips) for shard, _ in there)
        for number, _ in enumerate(in_threads(lambda each: self._link(*each), there)):
            done += len(there[number][0].clips)
            if progress is not None:
                progress("reuse", done, total)

    def _link(self, shard: Shard, same: EarlierShard) -> None:
        """Make a shard a link to one of an earlier cache; without links, or where that one is damaged, do nothing."""
        place = self._aside / shard_name(shard.number)
        # Another name than that of a file being written: whoever writes there would write into the earlier cache.
        link = place.with_name(f"{place.name}.link")
        link.unlink(missing_ok=True)
        try:
            os.link(same.file, link)
            sizes = same.sizes()
        except (OSError, ValueError):
            return  # no links here, or the cache is just being removed: clips are copied, or decoded
        if same.is_sound(link):
            self._save_tables(shard, sizes, [clip.checksum for clip in same.clips])
            link.replace(place)
        else:
            link.unlink()

    def _made_of_shard(self, shard: Shard) -> tuple[str, ...]:
        return self._made_of[shard.rows.start : shard.rows.stop]

    def _save_tables(self, shard: Shard, sizes: Sizes, checksums: Sequence[int | None]) -> None:
        """Write the tables of a shard, before it gets its name."""
        if self._form.frame_bytes is None:
            _save_array(self._sizes / f"{shard.number:05d}.npy", sizes)
        _save_array(self._sizes / checksums_name(shard.number), np.array(checksums, np.uint32))

    def _is_done(self, shard: Shard) -> bool:
        return shard_sizes(self._aside, self._begun, shard.number, shard.rows) is not None

    def _sizes_of(self, shard: Shard) -> Sizes:
        """Return the bytes of each frame of a finished shard."""
        sizes = shard_sizes(self._aside, self._begun, shard.number, shard.rows)
        if sizes is None:
            raise CacheError(f"{self._aside / shard_name(shard.number)} was changed while it was built; start again")
        return sizes

    def _write(self, shard: Shard, progress: Progress | None) -> None:
        file = self._aside / shard_name(shard.number)
        aside = file.with_name(f"{file.name}.part")
        sizes: list[int] = []
        checksums: list[int] = []
        decoded: list[ClipRecord] = []
        with aside.open("wb") as stream:
            for row, clip in zip(shard.rows, shard.clips, strict=True):
                known = self._earlier.frames(self._made_of[row], self._recipe.shape(clip))
                if known is None:
                    decoded.append(clip)
                found = 0
                for record in self._records(clip) if known is None else known:
                    stream.write(record)
                    sizes.append(len(record))
                    found = zlib.crc32(record, found)
                checksums.append(found)
                self._report(progress)
            stream.flush()
            os.fsync(stream.fileno())
        # A file that was replaced since it was measured may have as many frames of the same size.
        for clip in self._recipe.changed(decoded):
            raise _changed(clip)
        self._save_tables(shard, np.array(sizes, np.uint32), checksums)
        aside.replace(file)

    def _records(self, clip: ClipRecord) -> Iterator[bytes]:
        """Yield the bytes of each frame of a clip, and check that its shape is the one measured."""
        shape, count = self._recipe.shape(clip), 0

        def checked() -> Iterator[ByteArray]:
            for number, frame in enumerate(self._recipe.frames(clip)):
                if frame.shape[:2] != shape[1:] or number >= shape[0]:
                    raise _changed(clip)
                yield frame

        for record in self._form.encode(checked()):
            count += 1
            yield record
        if count != shape[0]:
            raise _changed(clip)

    def _report(self, progress: Progress | None) -> None:
        with self._report_lock:
            self._done += 1
            if progress is not None:
                progress(self._recipe.stage, self._done, len(self._recipe.clips))

    def _finish(self, meta: Mapping[str, Any] | None) -> None:
        sizes = [self._sizes_of(shard) for shard in self._shards]
        manifest = self._manifest(sizes)
        if self._name == "lmdb":
            pack_database(self._aside, manifest, np.concatenate([*sizes, np.empty(0, np.uint32)]), meta or {})
            manifest = replace(manifest, shard_bytes=())
        elif self._form.frame_bytes is None:
            _save_array(self._aside / SIZES_FILE, np.concatenate([*sizes, np.empty(0, np.uint32)]))
        checksums = [
            known for shard in self._shards for known in shard_checksums(self._aside, shard.number, len(shard.clips))
        ]
        Contents(made_of=self._made_of, checksums=tuple(checksums)).save(self._aside)
        manifest.save(self._aside)

    def _begin(self) -> Manifest:
        """Return the manifest of the cache before anything of it is built."""
        shapes = [self._recipe.shape(clip) for clip in self._recipe.clips]
        return Manifest(
            form=self._name,
            channels=self._recipe.channels,
            settings=dict(self._settings),
            ids=tuple(clip.id for clip in self._recipe.clips),
            n_frames=tuple(n_frames for n_frames, _, _ in shapes),
            height=tuple(height for _, height, _ in shapes),
            width=tuple(width for _, _, width in shapes),
            shard=tuple(shard.number for shard in self._shards for _ in shard.clips),
            offset=(),
            first=tuple(accumulate((n_frames for n_frames, _, _ in shapes), initial=0))[:-1],
            shard_bytes=(),
        )

    def _manifest(self, sizes: Sequence[Sizes]) -> Manifest:
        offset: list[int] = []
        for shard, sizes_of in zip(self._shards, sizes, strict=True):
            ends = np.concatenate([[0], np.cumsum(sizes_of, dtype=np.int64)])
            firsts = accumulate((self._begun.n_frames[row] for row in shard.rows[:-1]), initial=0)
            offset += [int(ends[first]) for first in firsts]
        return replace(self._begun, offset=tuple(offset), shard_bytes=tuple(int(s.sum(dtype=np.int64)) for s in sizes))

    def _tidy(self) -> None:
        """Remove files that the finished cache does not need."""
        shutil.rmtree(self._sizes, ignore_errors=True)
        for file in (self._aside / BEGUN_FILE, *self._aside.glob("shard-*.bin.link")):
            file.unlink(missing_ok=True)
        if self._name == "lmdb":
            for shard in self._aside.glob("shard-*.bin"):
                shard.unlink()


def building_folder(folder: Path) -> Path:
    """Return the folder of an unfinished cache."""
    return folder.with_name(f"{folder.name}{UNFINISHED}")


def _changed(clip: ClipRecord) -> CacheError:
    return CacheError(f"{clip.path} has changed since it was scanned; start again")


def _save_array(path: Path, array: Sizes) -> None:
    aside = path.with_name(f"{path.name}.part")
    with aside.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
