"""Videos decoded once into read-only uint8 frames that all processes of a machine share.

    <cache>/<name>-<key>/
        manifest.json     what was prepared, and where each clip's frames lie
        shard-000.bin     frames (T, H, W, 3) of clip after clip
    <cache>/<name>-<key>.building/    the same, unfinished, with a journal of finished clips
    <cache>/<name>-<key>.lock         held by the process that builds

The key is made of the index's hash and the preparation, so it changes with the content of any video;
clip length and stride are not in it. A build that was killed goes on with the clips its journal lacks: the
places of all frames follow from the index, so the bytes come out the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from .decode import decode_frames, scaled_size
from .errors import CacheError
from .index import ClipRecord, Index
from .parallel import in_threads
from .progress import Progress
from .store import Box, copy_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE_FORMAT = 1
SHARD_BYTES = 1 << 30
_CHUNK_FRAMES = 64
_SPARE_BYTES = 64 << 20
"""Left free on the disk beside the cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the frames of one clip lie."""

    shard: int
    offset: int
    """Bytes from the start of the shard."""
    n_frames: int
    height: int
    width: int

    @property
    def n_bytes(self) -> int:
        return self.n_frames * self.height * self.width * 3


class FrameCache:
    """Read access to prepared frames; cheap to open, safe to pickle and to share over a fork."""

    def __init__(self, folder: Path, places: Mapping[str, Place]) -> None:
        self.folder = folder
        self._places = places
        self._shards: dict[int, NDArray[np.uint8]] = {}

    @classmethod
    def open(cls, folder: Path) -> FrameCache:
        """Open a finished cache.

        Raises:
            CacheError: it is not there, or not as it was when it was finished.
        """
        manifest = folder / "manifest.json"
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            places = {id_: Place(**place) for id_, place in content["places"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{manifest} cannot be read ({error}); delete {folder}") from error
        for number, size in enumerate(_shard_sizes(places.values())):
            shard = folder / _shard_name(number)
            if not shard.is_file() or shard.stat().st_size != size:
                raise CacheError(f"{shard} is not as it was built; delete {folder}")
        return cls(folder, places)

    def place(self, id_: str) -> Place:
        """Return where clip `id_` lies, and with it its number of frames and their size."""
        try:
            return self._places[id_]
        except KeyError:
            raise CacheError(f"{self.folder} holds no clip {id_!r}; prepare it again") from None

    @property
    def channels(self) -> int:
        """RGB."""
        return 3

    def shape(self, id_: str) -> tuple[int, int, int]:
        """Return (frames, height, width) of a clip."""
        place = self.place(id_)
        return place.n_frames, place.height, place.width

    def read_into(self, id_: str, indices: NDArray[np.intp], box: Box, target: NDArray[np.uint8]) -> None:
        """Copy `box` of the frames `indices` into `target` (T, box.height, box.width, 3)."""
        copy_box(self.video(id_), indices, box, target)

    def video(self, id_: str) -> NDArray[np.uint8]:
        """Return all frames of a clip as a read-only view (T, H, W, 3) of the shared file."""
        place = self.place(id_)
        if place.shard not in self._shards:
            path = self.folder / _shard_name(place.shard)
            self._shards[place.shard] = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        flat = self._shards[place.shard][place.offset : place.offset + place.n_bytes]
        return flat.reshape(place.n_frames, place.height, place.width, 3)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._places

    def __getstate__(self) -> dict[str, Any]:
        # An open memory map would be pickled as the bytes of its whole shard.
        return {"folder": self.folder, "_places": self._places, "_shards": {}}


def estimate_bytes(index: Index, short_side: int) -> int:
    """Return the size of the cache of an index before anything is decoded."""
    return sum(_size(clip, short_side) for clip in index.usable)


def cache_folder(index: Index, cache_dir: Path, short_side: int) -> Path:
    """Return where the cache of this index and preparation lies or will lie."""
    parts = f"{CACHE_FORMAT}|{index.hash}|short_side={short_side}"
    key = hashlib.sha256(parts.encode()).hexdigest()[:16]
    return cache_dir / f"{index.name}-{key}"


def prepare_cache(
    index: Index,
    root: Path,
    cache_dir: Path,
    *,
    short_side: int,
    progress: Progress | None = None,
) -> FrameCache:
    """Return the cache of all usable clips, building it unless it is there.

    Several processes may call this at once: one builds, the others wait for it.

    Raises:
        CacheError: the disk is too small or cannot be written, or a video has changed.
        VideoError: a video that could be decoded before cannot be any more.
    """
    folder = cache_folder(index, cache_dir, short_side)
    if folder.is_dir():
        return FrameCache.open(folder)
    with _as_cache_error(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                _Build(index, root, folder, short_side).run(progress)
    return FrameCache.open(folder)


@contextmanager
def _as_cache_error(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(f"the cache in {cache_dir} cannot be written: {error}") from error


class _Build:
    """One process's work on an unfinished cache; the caller holds the lock."""

    def __init__(self, index: Index, root: Path, folder: Path, short_side: int) -> None:
        self._index = index
        self._root = root
        self._folder = folder
        self._short_side = short_side
        self._aside = folder.with_name(f"{folder.name}.building")
        self._places = _layout(index.usable, short_side)
        self._journal = self._aside / "journal.jsonl"
        self._journal_lock = Lock()

    def run(self, progress: Progress | None) -> None:
        self._require_space()
        self._aside.mkdir(exist_ok=True)
        shards = self._open_shards()
        try:
            self._fill(shards, progress)
            for shard in shards:
                os.fsync(shard)
        finally:
            for shard in shards:
                os.close(shard)
        self._finish()

    def _require_space(self) -> None:
        needed = sum(place.n_bytes for place in self._places.values())
        if self._aside.is_dir():
            # Shards grow as they are filled: what is allocated is already paid for.
            needed -= sum(file.stat().st_blocks * 512 for file in self._aside.glob("shard-*.bin"))
        free = shutil.disk_usage(self._folder.parent).free
        if needed + _SPARE_BYTES > free:
            raise CacheError(
                f"the frames need {needed / 1e9:.1f} GB but {self._folder.parent} has "
                f"{free / 1e9:.1f} GB free; free some, or lower short_side ({self._short_side})"
            )

    def _open_shards(self) -> list[int]:
        shards = []
        for number, size in enumerate(_shard_sizes(self._places.values())):
            shard = os.open(self._aside / _shard_name(number), os.O_RDWR | os.O_CREAT, 0o644)
            shards.append(shard)
            os.truncate(shard, size)
        return shards

    def _fill(self, shards: Sequence[int], progress: Progress | None) -> None:
        journal = self._read_journal()
        done = 0
        todo = []
        for clip in self._index.usable:
            if journal.get(clip.id) == self._stored_checksum(clip, shards):
                done += 1
            else:
                todo.append(clip)

        def prepare(clip: ClipRecord) -> None:
            self._note(clip, self._store(clip, shards))

        for _ in in_threads(prepare, todo):
            done += 1
            if progress is not None:
                progress("prepare", done, len(self._places))

    def _store(self, clip: ClipRecord, shards: Sequence[int]) -> int:
        """Decode a clip into its place and return the checksum of its bytes."""
        place = self._places[clip.id]
        path = self._root / clip.path
        checksum, count = 0, 0
        for chunk in _chunks(decode_frames(path, short_side=self._short_side)):
            start = place.offset + count * place.height * place.width * 3
            count += len(chunk)
            if chunk.shape[1:3] != (place.height, place.width) or count > place.n_frames:
                raise CacheError(f"{path} has changed since it was scanned; start again")
            content = chunk.tobytes()
            _write(shards[place.shard], content, start)
            checksum = zlib.crc32(content, checksum)
        if count != place.n_frames:
            raise CacheError(f"{path} has changed since it was scanned; start again")
        return checksum

    def _stored_checksum(self, clip: ClipRecord, shards: Sequence[int]) -> int:
        place = self._places[clip.id]
        checksum, at, end = 0, place.offset, place.offset + place.n_bytes
        while at < end:
            content = os.pread(shards[place.shard], min(1 << 22, end - at), at)
            if not content:
                return -1
            checksum = zlib.crc32(content, checksum)
            at += len(content)
        return checksum

    def _note(self, clip: ClipRecord, checksum: int) -> None:
        # The empty line ends one that a killed process left unfinished.
        line = "\n" + json.dumps([clip.id, checksum]) + "\n"
        with self._journal_lock, self._journal.open("a", encoding="utf-8") as file:
            file.write(line)

    def _read_journal(self) -> dict[str, int]:
        known: dict[str, int] = {}
        if self._journal.exists():
            for line in self._journal.read_bytes().splitlines():
                try:
                    id_, checksum = json.loads(line)
                except ValueError:
                    continue  # the line was being written when its process was killed
                known[id_] = checksum
        return known

    def _finish(self) -> None:
        content = {
            "format": CACHE_FORMAT,
            "dataset": self._index.name,
            "version": self._index.hash,
            "short_side": self._short_side,
            "places": {id_: asdict(place) for id_, place in self._places.items()},
        }
        with (self._aside / "manifest.json").open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=0)
            file.flush()
            os.fsync(file.fileno())
        self._journal.unlink(missing_ok=True)
        self._aside.rename(self._folder)


def _layout(clips: Sequence[ClipRecord], short_side: int) -> dict[str, Place]:
    places: dict[str, Place] = {}
    shard = offset = 0
    for clip in clips:
        width, height = scaled_size(clip.measured.width, clip.measured.height, short_side)
        if offset and offset + _size(clip, short_side) > SHARD_BYTES:
            shard, offset = shard + 1, 0
        place = Place(shard=shard, offset=offset, n_frames=clip.n_frames, height=height, width=width)
        places[clip.id] = place
        offset += place.n_bytes
    return places


def _size(clip: ClipRecord, short_side: int) -> int:
    width, height = scaled_size(clip.measured.width, clip.measured.height, short_side)
    return clip.n_frames * height * width * 3


def _shard_sizes(places: Iterable[Place]) -> list[int]:
    sizes: dict[int, int] = {}
    for place in places:
        sizes[place.shard] = max(sizes.get(place.shard, 0), place.offset + place.n_bytes)
    return [sizes[number] for number in sorted(sizes)]


def _shard_name(number: int) -> str:
    return f"shard-{number:03d}.bin"


def _chunks(frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    while chunk := list(islice(frames, _CHUNK_FRAMES)):
        yield np.stack(chunk)


def _write(file: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written
