"""Measuring all clips of a data set in parallel, with results kept for the next scan."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from threading import Lock

from filelock import FileLock

from ..errors import DISK_ERRORS, DiskError, VideoError
from ..index.records import ListedClip, Measurement
from ..parallel import in_threads
from ..progress import Progress
from ..reading.clip_frames import decode_flow_pair, flow_folder, flow_paths, pictures, read_file
from ..reading.frames_hash import FramesHash
from ..reading.images import decode_image, image_codec
from ..reading.lmdb_frames import data_file
from ..reading.packed import video_file
from ..reading.video import MIN_FRAMES, frames_fault, measure_video, segments_sha1

FLOW_SLACK_PAIRS = 1
"""Number of pairs that listed flow may lack: some tools leave out the last one, which is then repeated."""

_MEMORY_FORMAT = 4
_SAMPLED_FILES = 8


class Measurements:
    """Results of `measure_clip`, kept in a file so that a killed scan continues where it was.

    A result is valid as long as the sizes and modification times of its files do not change. Each is
    one line of JSON, appended at once; a line cut by a crash is ignored.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the results in `path`; None keeps results in this object only."""
        self._path = path
        self._write_lock = Lock()
        self._known: dict[str, Measurement] = {}
        self._forgotten: frozenset[str] = frozenset()
        self.read()

    def read(self) -> None:
        """Read the file again, to get the results that other processes added."""
        if self._path is not None and self._path.exists():
            for line in self._path.read_bytes().splitlines():
                self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if entry["format"] == _MEMORY_FORMAT and entry["key"] not in self._forgotten:
                self._known[entry["key"]] = Measurement(**entry["measured"])
        except (ValueError, KeyError, TypeError):
            return  # the line was being written when its process was killed

    def forget(self, keys: Iterable[str]) -> None:
        """Measure these again; the results of others that were measured before do not count."""
        self._forgotten = frozenset(keys)
        for key in self._forgotten:
            self._known.pop(key, None)

    def get(self, key: str) -> Measurement | None:
        return self._known.get(key)

    def put(self, key: str, measured: Measurement) -> None:
        entry = {"format": _MEMORY_FORMAT, "key": key, "measured": asdict(measured)}
        with self._write_lock:
            self._known[key] = measured
            if self._path is not None:
                with self._path.open("ab") as file:
                    # The newline in front ends a line that a killed process left unfinished.
                    file.write(b"\n" + json.dumps(entry).encode() + b"\n")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the file lock, which one process has at a time, and read the results of the others."""
        if self._path is None:
            yield
            return
        with FileLock(self._path.with_suffix(".lock")):
            self.read()
            yield


def measure_all(
    root: Path,
    clips: Iterable[ListedClip],
    memory: Measurements,
    *,
    progress: Progress | None = None,
    every_byte: bool = False,
) -> dict[str, Measurement]:
    """Return the measurements of all clips below `root`, by id; only clips that are not in `memory` are decoded.

    With `every_byte`, all files are read, and those that hold other bytes than were measured are decoded again. If all
    are known, nothing is locked or written. Otherwise one process decodes, and others that ask at the same time wait
    for its results.
    """
    keys = {clip: _key(root, clip) for clip in clips}
    if every_byte:
        memory.forget(_stale(root, keys, memory, progress))
    found = {clip.id: measure_clip(root, clip) for clip, key in keys.items() if key is None}
    if _recall(keys, memory, found):
        with memory.exclusive():
            unknown = _recall(keys, memory, found)
            for done, measured in enumerate(in_threads(lambda clip: measure_clip(root, clip), unknown)):
                clip = unknown[done]
                found[clip.id] = measured
                memory.put(keys[clip] or clip.id, measured)
                if progress is not None:
                    progress("scan", done + 1, len(unknown))
    return found


def _stale(
    root: Path, keys: Mapping[ListedClip, str | None], memory: Measurements, progress: Progress | None
) -> list[str]:
    """Return the keys of clips whose files hold other bytes than were measured; each video is read once."""
    known = [
        (clip, key, measured)
        for clip, key in keys.items()
        if key is not None and (measured := memory.get(key)) is not None
    ]
    by_file: dict[tuple[str, str], list[tuple[ListedClip, str, Measurement]]] = {}
    for each in known:
        by_file.setdefault((each[0].path, each[0].member), []).append(each)
    files = list(by_file.values())
    stale: list[str] = []
    checked = in_threads(lambda each: changed(root, [(clip, measured) for clip, _, measured in each]), files)
    for done, differ in enumerate(checked):
        stale += [key for (_, key, _), differs in zip(files[done], differ, strict=True) if differs]
        if progress is not None:
            progress("check", done + 1, len(files))
    return stale


def measure_clip(root: Path, clip: ListedClip) -> Measurement:
    """Return the measurement of a clip after decoding all its frames; an unusable clip is not an error.

    Raises:
        DiskError: the disk fails, and nothing is known about the clip.
    """
    if clip.kind == "video":
        measured = measure_video(video_file(clip, root), start=clip.start, end=clip.end)
    else:
        measured = _measure_pictures(root, clip)
    if measured.status != "ok" or clip.flow is None:
        return measured
    n_pairs = len(flow_paths(clip, root)[: measured.n_frames])
    if n_pairs < measured.n_frames - 1 - FLOW_SLACK_PAIRS:
        note = f"its flow has {n_pairs} pairs of images for {measured.n_frames} frames"
        return Measurement(status="truncated", sha1=measured.sha1, note=note)
    try:
        return replace(measured, flow_sha1=_flow_sha1(root, clip, measured.n_frames, decoded=True))
    except VideoError as error:
        return Measurement(status=error.status, sha1=measured.sha1, note=f"its flow is damaged: {error}")


def changed(root: Path, clips: Sequence[tuple[ListedClip, Measurement]]) -> list[bool]:
    """Return for each of several clips with one file whether its files hold other bytes than were measured.

    All bytes are read: sizes and times, which are compared else, are the same where a disk or a copy damaged a file in
    place. A clip that was not sound is taken for changed.
    """
    videos = [clip for clip, measured in clips if clip.kind == "video" and measured.status == "ok"]
    hashes: dict[ListedClip, str] = {}
    if videos:
        try:
            found = segments_sha1(video_file(videos[0], root), [(clip.start, clip.end) for clip in videos])
        except OSError:
            return [True] * len(clips)
        hashes = dict(zip(videos, found, strict=True))
    return [measured.status != "ok" or _differs(root, clip, measured, hashes.get(clip)) for clip, measured in clips]


def _differs(root: Path, clip: ListedClip, measured: Measurement, sha1: str | None) -> bool:
    """Return whether a clip, of which a video's hash is known, differs from what was measured."""
    try:
        if sha1 is None:
            digest = hashlib.sha1(usedforsecurity=False)
            for picture in pictures(clip, root):
                digest.update(picture.content)
            sha1 = digest.hexdigest()
        flow = "" if clip.flow is None else _flow_sha1(root, clip, measured.n_frames, decoded=False)
    except (OSError, VideoError):
        return True
    return (sha1, flow) != (measured.sha1, measured.flow_sha1)


def _flow_sha1(root: Path, clip: ListedClip, n_frames: int, *, decoded: bool) -> str:
    """Return the hash of the listed flow of a clip.

    Args:
        decoded: whether to check that every image decodes, too, and has the size of the other of its pair.

    Raises:
        VideoError: an image cannot be read or decoded, or two of a pair differ in size.
    """
    digest = hashlib.sha1(usedforsecurity=False)
    for x, y in flow_paths(clip, root)[:n_frames]:
        contents = [read_file(path) for path in (x, y)]
        for content in contents:
            digest.update(content)
        if decoded:
            decode_flow_pair((x, y), contents)
    return digest.hexdigest()


def _measure_pictures(root: Path, clip: ListedClip) -> Measurement:
    digest, shown = hashlib.sha1(usedforsecurity=False), FramesHash()
    n_frames, codec, size = 0, "", (0, 0)
    try:
        for picture in pictures(clip, root):
            frame = decode_image(picture.content, picture.name)
            digest.update(picture.content)
            shown.update(frame)
            if n_frames == 0:
                codec, size = image_codec(picture.content), frame.shape[:2]
            n_frames += 1
    except VideoError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_ERRORS:
            raise DiskError(f"{error}; check the disk or the mount") from error
        return Measurement(status=error.status, note=str(error))
    if n_frames == 0 and clip.start == 0:
        return Measurement(status="empty", note="it holds no images")
    # A database may consist of single images.
    least = 1 if clip.kind in ("image", "lmdb") else MIN_FRAMES
    fault = frames_fault(n_frames, clip.start, clip.end, least=least)
    if fault is not None:
        return Measurement(status=fault[0], sha1=digest.hexdigest(), note=fault[1])
    return Measurement(
        status="ok",
        n_frames=n_frames,
        width=size[1],
        height=size[0],
        codec=codec,
        sha1=digest.hexdigest(),
        frames_hash=shown.hexdigest(),
    )


def _recall(
    keys: dict[ListedClip, str | None], memory: Measurements, found: dict[str, Measurement]
) -> list[ListedClip]:
    """Return the clips that are not in `memory`, after adding the results of the others to `found`."""
    unknown = []
    for clip, key in keys.items():
        if clip.id in found or key is None:
            continue
        known = memory.get(key)
        if known is None:
            unknown.append(clip)
        else:
            found[clip.id] = known
    return unknown


def _key(root: Path, clip: ListedClip) -> str | None:
    """Return a key of a clip's content that needs no decoding, or None if its files are missing."""
    path = root / clip.path
    try:
        if clip.kind == "frames":
            state = _folder_state(path)
        else:
            stat = (data_file(path) if clip.kind == "lmdb" else path).stat()
            state = f"{stat.st_size}|{stat.st_mtime_ns}"
    except OSError:
        return None
    parts: list[object] = [clip.path, state]
    if clip.start or clip.end is not None or clip.frame_name:
        parts += [clip.start, clip.end, clip.frame_name]
    if clip.member:
        parts.append(clip.member)
    flow = flow_folder(clip, root)
    if flow is not None:
        parts += [clip.flow, _folder_state(flow)]
    return "|".join(str(part) for part in parts)


def _folder_state(folder: Path) -> str:
    """Return a text that changes when a folder of frames is filled again.

    Reading the time of every frame would make opening a large set too slow. Adding, removing and replacing files
    changes the folder's time, and rewriting all of them in place changes the files that are sampled.
    """
    if not folder.is_dir():
        return ""
    names = sorted(entry.name for entry in os.scandir(folder))
    sampled = names[:: max(1, len(names) // _SAMPLED_FILES)]
    stats = [(folder / name).stat() for name in sampled]
    files = ",".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
    digest = hashlib.sha1(files.encode(), usedforsecurity=False).hexdigest()[:16]
    return f"{len(names)}|{folder.stat().st_mtime_ns}|{digest}"
