"""Writing a data set as shards or tables, which hold the bytes of the videos: one official split.

    webdataset     train-000000.tar, ..., test-000000.tar: <Class>/<clip>.avi, .cls, .json
    parquet        data/train-00000-of-00002.parquet, ...: video, label, group
    videofolder    train/metadata.csv, train/<Class>/<clip>.avi: links, as in the other layouts

The clips of a shard come from all classes, in an order that is the same at every export: readers of shards mix
neighbours only.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ExportError
from ..index.records import ClipRecord
from ..reading.packed import VideoFile, pyarrow, size_of, video_file
from .safe_names import SafeName

SHARD_BYTES = 1 << 29
"""Videos in one shard or table, at most, unless one video is larger."""
_GROUP_BYTES = 1 << 25
"""Videos in one row group of a table, at most: readers hold one in memory."""
_FEATURES = {"video": {"_type": "Video"}, "group": {"dtype": "string", "_type": "Value"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedClip:
    """A clip to write, and its safe name."""

    clip: ClipRecord
    name: SafeName
    root: Path

    @property
    def file(self) -> VideoFile:
        return video_file(self.clip, self.root)

    @property
    def suffix(self) -> str:
        return suffix_of_clip(self.clip)

    @property
    def group(self) -> str:
        """Its group; empty for a clip that is its own, so that another name does not make two of it."""
        return "" if self.clip.group == self.clip.id else self.clip.group

    def read(self) -> bytes:
        with self.file.open("rb") as file:
            return file.read()


def suffix_of_clip(clip: ClipRecord) -> str:
    """Return the suffix of a clip's video: that of its file, or of its name in a shard; `.mp4` for a table's."""
    if not clip.member:
        return PurePosixPath(clip.path).suffix
    return PurePosixPath(clip.member.rpartition("@")[0]).suffix or ".mp4"


def write_shards(out: Path, sides: dict[str, list[PackedClip]]) -> list[Path]:
    """Return the shards written, `<side>-<number>.tar`.

    Raises:
        ExportError: the folder holds shards already.
    """
    _require_none(out, ".tar")
    with _all_or_none() as written:
        for side, clips in sides.items():
            for number, part in enumerate(_parts(_mixed(clips), SHARD_BYTES)):
                aside = _aside(written, out / f"{side}-{number:06d}.tar")
                with tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as tar:
                    for each in part:
                        about = {"label": each.clip.label, "class_name": each.clip.class_name, "group": each.group}
                        _add(tar, f"{each.name}{each.suffix}", each.read())
                        _add(tar, f"{each.name}.cls", str(each.clip.label).encode())
                        _add(tar, f"{each.name}.json", json.dumps(about, ensure_ascii=False).encode())
    return list(written)


def write_tables(out: Path, sides: dict[str, list[PackedClip]], class_names: Sequence[str]) -> list[Path]:
    """Return the tables written, `data/<side>-<number>-of-<count>.parquet`.

    Raises:
        ExportError: the folder holds tables already.
        DatasetError: pyarrow is not installed.
    """
    arrow = pyarrow()
    _require_none(out / "data", ".parquet")
    schema = _schema(arrow, class_names)
    (out / "data").mkdir(exist_ok=True)
    with _all_or_none() as written:
        for side, clips in sides.items():
            parts = list(_parts(_mixed(clips), SHARD_BYTES))
            for number, part in enumerate(parts):
                aside = _aside(written, out / "data" / f"{side}-{number:05d}-of-{len(parts):05d}.parquet")
                # Videos are compressed already.
                with arrow.parquet.ParquetWriter(aside, schema, compression="none") as writer:
                    for group in _parts(part, _GROUP_BYTES):
                        writer.write_table(arrow.Table.from_pylist([_row(each) for each in group], schema=schema))
    return list(written)


def metadata_csv(clips: Sequence[PackedClip]) -> list[str]:
    """Return the lines of the metadata of one side's folder."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_name", "label", "group"])
    for each in clips:
        writer.writerow([f"{each.name}{each.suffix}", each.clip.class_name, each.group])
    return text.getvalue().splitlines()


def _row(each: PackedClip) -> dict[str, Any]:
    return {
        "video": {"bytes": each.read(), "path": f"{each.name.stem}{each.suffix}"},
        "label": each.clip.label,
        "group": each.group,
    }


def _schema(arrow: Any, class_names: Sequence[str]) -> Any:
    features = {**_FEATURES, "label": {"names": list(class_names), "_type": "ClassLabel"}}
    video = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns = [("video", video), ("label", arrow.int64()), ("group", arrow.string())]
    return arrow.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _mixed(clips: Sequence[PackedClip]) -> list[PackedClip]:
    return sorted(clips, key=lambda each: hashlib.sha256(each.clip.id.encode()).digest())


def _parts(clips: Sequence[PackedClip], most: int) -> Iterator[list[PackedClip]]:
    part: list[PackedClip] = []
    total = 0
    for each in clips:
        size = size_of(each.file)
        if part and total + size > most:
            yield part
            part, total = [], 0
        part.append(each)
        total += size
    if part:
        yield part


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # without a time and an owner: equal exports have equal bytes
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _require_none(folder: Path, suffix: str) -> None:
    found = sorted(folder.glob(f"*{suffix}"))
    if found:
        raise ExportError(f"{found[0]} exists: export into an empty folder, since all {suffix} there are one data set")


@contextmanager
def _all_or_none() -> Iterator[dict[Path, Path]]:
    """Yield an empty dictionary of files and where they are written; they get their names once all are complete.

    A part of the shards looks like a smaller data set.
    """
    written: dict[Path, Path] = {}
    try:
        yield written
        for path, aside in written.items():
            aside.replace(path)
    finally:
        for aside in written.values():
            aside.unlink(missing_ok=True)


def _aside(written: dict[Path, Path], path: Path) -> Path:
    """Return where a file is written, which readers pass over."""
    return written.setdefault(path, path.with_name(f".{path.name}.{os.getpid()}.tmp"))
