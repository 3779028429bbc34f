"""WebDataset: shards, which are tar archives; files of one name up to its first dot are one sample.

    train-000000.tar                             shards, on the side that their name or folder says
        Archery/a_01.mp4                         the video
        Archery/a_01.cls                         its class: a number from 0, or a name
        Archery/a_01.json                        or {"label": 0, "class_name": "Archery", "group": "a"}
        Archery/a_01.txt                         or the name of the class

The label is that of `.cls`, else of `.json`, else of `.txt`. `group` (else `source`, `youtube_id`) names what the
video was cut from. Clips are called `<shard>/<name>`, because names may begin anew in each shard.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.listing import VIDEO_SUFFIXES, Listing, is_file, require_folder, whole_number
from ..reading.packed import tar_member
from .samples import Sample, files_of, group_in, label_in, listing_of_samples, missing_notes, side_of

_LABEL_PARTS = ("cls", "json", "txt")
_MOST_LABEL_BYTES = 1 << 20
_PEEKED = 32
"""Members of a tar archive that are looked at to see whether it is a shard."""
_BLOCK = 512


def read_webdataset(root: Path) -> Listing:
    """Return the samples of all shards below `root`.

    Raises:
        DatasetNotFoundError: there is no shard.
        DatasetFormatError: a shard is cut off or damaged, or a sample lacks its label; the message names both.
    """
    require_folder(root)
    shards = files_of(root, ".tar")
    if not shards:
        raise DatasetNotFoundError(f"{root} holds no shard *.tar; compressed ones have to be unpacked to plain tar")
    samples: list[Sample] = []
    other = 0
    for shard in shards:
        parts = _read_shard(shard)
        name = shard.relative_to(root).with_suffix("").as_posix()
        samples += [_sample(shard, root, name, key, parts.samples[key]) for key in parts.samples]
        other += parts.other
    if not any(not sample.problem for sample in samples):
        raise DatasetNotFoundError(f"{root} has {len(shards)} *.tar, and none holds a video with a label")
    _require_classes(root, samples)
    notes = [
        *missing_notes(shards, root),
        *_repeated(samples),
        *([f"{other} files in shards belong to no video"] if other else []),
    ]
    return listing_of_samples(root, samples, notes=notes)


def is_webdataset(root: Path) -> bool:
    """Return whether the first tar archive begins with a video and a label of the same name."""
    return any(_is_shard(path) for path in files_of(root, ".tar")[:1])


def _is_shard(path: Path) -> bool:
    if not is_file(path):
        return False
    names: dict[str, set[str]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for info in islice(tar, _PEEKED):
                key, part = _key(info.name)
                names.setdefault(key, set()).add(part)
    except (tarfile.TarError, OSError):
        return False
    return any(_is_video(part) for parts in names.values() for part in parts) and any(
        not parts.isdisjoint(_LABEL_PARTS) for parts in names.values()
    )


def _key(name: str) -> tuple[str, str]:
    """Return the name of a member's sample, and which part of it the member is."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, part = file.partition(".")
    return f"{folder}{slash}{stem}", part.lower()


def _is_video(part: str) -> bool:
    return f".{part.rpartition('.')[2]}" in VIDEO_SUFFIXES


@dataclass(slots=True)
class _Parts:
    """What one sample consists of."""

    video: str = ""
    """Its member."""
    labels: dict[str, bytes] = field(default_factory=dict)
    """Content of the parts that may hold its label."""


@dataclass(slots=True)
class _Shard:
    samples: dict[str, _Parts] = field(default_factory=dict)
    other: int = 0
    """Files that are neither a video nor a label."""


def _read_shard(path: Path) -> _Shard:
    shard = _Shard()
    seen: set[tuple[str, str]] = set()
    try:
        for info, content in _members(path):
            key, part = _key(info.name)
            if not key.rpartition("/")[2]:
                continue  # hidden files
            kind = "video" if _is_video(part) else part
            if (key, kind) in seen:
                raise DatasetFormatError(
                    f"{path} holds two files .{part} or videos of the sample {quoted(key)}: leave one"
                )
            seen.add((key, kind))
            if kind == "video":
                member = tar_member(info.name, info.offset_data, info.size)
                shard.samples.setdefault(key, _Parts()).video = member
            elif part in _LABEL_PARTS:
                shard.samples.setdefault(key, _Parts()).labels[part] = content
            else:
                shard.other += 1
    except (tarfile.TarError, OSError) as error:
        raise DatasetFormatError(f"{path} cannot be read as a tar archive ({error}): copy the shard again") from None
    return shard


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield the files in a tar archive, with the content of what may be a label.

    Raises:
        DatasetFormatError: the archive ends before its end mark.
    """
    size = path.stat().st_size
    last = "its first file"
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            if info.offset_data + (info.size if info.isreg() else 0) > size:
                raise DatasetFormatError(f"{path} ends in the middle of {quoted(info.name)}: copy the shard again")
            last = info.name
            if not info.isreg():
                continue
            is_label = _key(info.name)[1] in _LABEL_PARTS and info.size <= _MOST_LABEL_BYTES
            file = tar.extractfile(info) if is_label else None
            yield info, file.read() if file is not None else b""
        end = tar.offset
    with path.open("rb") as raw:
        raw.seek(end)
        if raw.read(_BLOCK).strip(b"\0") or end + _BLOCK > size:
            raise DatasetFormatError(f"{path} ends early, after {quoted(last)}: copy the shard again")


def _sample(shard: Path, root: Path, name: str, key: str, parts: _Parts) -> Sample:
    where = f"{shard}: sample {quoted(key)}"
    label, class_name, values = _label(parts.labels, where)
    return Sample(
        id=f"{name}/{key}",
        path=shard.relative_to(root).as_posix(),
        member=parts.video,
        label=label,
        class_name=class_name,
        group=group_in(values),
        stem=PurePosixPath(key).name,
        side=side_of(shard, root),
        where=where,
        problem="" if parts.video else f"the shard has no video of the sample {quoted(key)}",
    )


def _label(parts: dict[str, bytes], where: str) -> tuple[int | str | None, str, dict[str, Any]]:
    """Return a sample's label, the name of its class, and its metadata."""
    texts = {part: _text(content, f"{where}: its .{part}") for part, content in parts.items() if part != "txt"}
    values: Any = {}
    if "json" in texts:
        try:
            values = json.loads(texts["json"])
        except (ValueError, RecursionError) as error:
            raise DatasetFormatError(f"{where}: its .json is not JSON ({error}); mend it") from None
        if not isinstance(values, dict):
            values = {"label": values}
    label, class_name = label_in(values, where)
    text = texts.get("cls", "")
    if not text and label is None:
        text = _text(parts.get("txt", b""), f"{where}: its .txt")
    if text:
        number = whole_number(text)
        if number is None and "cls" in texts and label is not None and label != text:
            raise DatasetFormatError(f"{where}: its .cls is {quoted(text)}, its .json {quoted(label)}; make them agree")
        if number is not None and isinstance(label, int) and label != number:
            raise DatasetFormatError(f"{where}: its .cls is {number}, its .json {label}; make them agree")
        if number is not None and isinstance(label, str):
            class_name = class_name or label
        label = text if number is None else number
    return label, class_name, values


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        # In its place would be the same mark for different letters, and one class made of two.
        raise DatasetFormatError(f"{where} is not text in UTF-8 (byte {error.start}); write it anew") from None


def _require_classes(root: Path, samples: list[Sample]) -> None:
    """Check that texts are names of classes: captions are not."""
    labels = {sample.label for sample in samples}
    if len(samples) > 2 and len(labels) == len(samples) and all(isinstance(label, str) for label in labels):
        raise DatasetFormatError(
            f"{root}: all {len(samples)} samples have labels of their own, such as {quoted(samples[0].label)}: these "
            "are no classes; write the class into .cls"
        )


def _repeated(samples: list[Sample]) -> Iterator[str]:
    """Yield a note where the name of a sample is in several shards: it may be the same video."""
    first: dict[str, Sample] = {}
    pairs = []
    for sample in samples:
        key = sample.where.partition(": ")[2]
        other = first.setdefault(key, sample)
        if other is not sample:
            pairs.append((other, sample))
    if pairs:
        one, two = pairs[0]
        yield (
            f"{len(pairs)} names of samples are in several shards and count as different videos, e.g. {one.where} and "
            f"in {two.path}"
        )
