"""One moving picture kept in every way that a clip can be kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from data.arrays import ByteArray
from data.index.records import ClipRecord, Index, ListedClip, make_index
from data.reading.video import decode_frames
from data.scanning.measure import Measurements, measure_all


def listed(path: str, **changes: Any) -> ListedClip:
    """Return a clip that a list names."""
    given: dict[str, Any] = {"id": path, "label": 0, "class_name": "a", "group": path, "official": ()}
    return ListedClip(path=path, **{**given, **changes})


def index_of(root: Path, *clips: ListedClip) -> Index:
    """Return the index of clips that are measured."""
    measured = measure_all(root, clips, Measurements(None))
    fields = [name for name in ListedClip.__slots__]
    records = [
        ClipRecord(**{name: getattr(clip, name) for name in fields}, measured=measured[clip.id]) for clip in clips
    ]
    return make_index(name="made", class_names=["a", "b"], clips=records)


def moving(n_frames: int, height: int, width: int, *, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return smooth colours (T, H, W, 3) that drift, so that every frame differs from the others."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    t = np.arange(n_frames)[:, None, None]
    planes = [
        127 + 80 * np.sin(x / 9 + t * step + phase) + 40 * np.cos(y / 7 - t * step)
        for step, phase in zip((0.3, 0.2, 0.5), rng.uniform(0, 6, 3), strict=True)
    ]
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def write_frames(folder: Path, frames: np.ndarray[Any, Any], *, name: str = "img_%05d.png", first: int = 1) -> None:
    """Write frames (T, H, W, 3) as images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        cv2.imwrite(str(folder / (name % number)), frame[..., ::-1])


def write_database(path: Path, id_: str, frames: np.ndarray[Any, Any], *, first: int = 0) -> None:
    """Put frames (T, H, W, 3) into an LMDB as PNG images under `<id>/%05d`."""
    with lmdb.open(str(path), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for number, frame in enumerate(frames, start=first):
            transaction.put(f"{id_}/{number:05d}".encode(), cv2.imencode(".png", frame[..., ::-1])[1].tobytes())


def decode_video(path: Path, *, short_side: int | None = None) -> ByteArray:
    """Return all frames of a video, (T, H, W, 3); see `decode_frames`."""
    return np.stack(list(decode_frames(path, short_side=short_side)))
