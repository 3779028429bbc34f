"""An index on disk: columns instead of records, so that thousands of clips are read in a fraction of a second.

    {"index": 3, "digest": sha256 of the hash and the second line, "hash": the data set's version}
    {"name": ..., "class_names": [...], "notes": [...], "clips": 13320, "columns": {"id": ..., "path": ...}}

A column is a list of values, or `{"values": distinct values, "of": position of each clip's value}`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import DatasetFormatError, DatasetNotFoundError
from .records import ClipRecord, FlowFiles, Index, ListedClip, Measurement

FILE_FORMAT = 3
_LISTED = tuple(field.name for field in fields(ListedClip))
_ADDED = ("member",)
"""Fields of clips that earlier releases did not write."""
_NESTED = ("official", "other_labels", "flow")
_MEASURED = tuple(field.name for field in fields(Measurement))


def write_index(index: Index, path: Path) -> None:
    """Write `index`; a reader sees either the old file or the whole new one."""
    columns = {name: _column([_plain(name, getattr(clip, name)) for clip in index.clips]) for name in _LISTED}
    for name in _MEASURED:
        columns[f"measured.{name}"] = _column([getattr(clip.measured, name) for clip in index.clips])
    body = _compact(
        {
            "name": index.name,
            "class_names": index.class_names,
            "notes": index.notes,
            "clips": len(index.clips),
            "columns": columns,
        }
    )
    head = _compact({"index": FILE_FORMAT, "digest": _digest(index.hash, body), "hash": index.hash})
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_bytes(head + b"\n" + body + b"\n")
    aside.replace(path)


def read_index(path: Path) -> Index:
    """Return the index that `write_index` wrote.

    Raises:
        DatasetNotFoundError: there is no such file.
        DatasetFormatError: the file is not an index, or was changed since it was saved.
    """
    try:
        head, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise DatasetNotFoundError(f"there is no index {path}; scan the data set") from None
    except OSError as error:
        raise DatasetFormatError(f"{path} cannot be read ({error}); scan again") from None
    try:
        stated = json.loads(head)
        version, digest, hash_ = stated["index"], stated["digest"], stated["hash"]
    except (KeyError, TypeError, ValueError):
        raise DatasetFormatError(
            f"{path} is no index of a data set, which `hpo data scan` writes; scan the folder of the videos"
        ) from None
    if version != FILE_FORMAT:
        raise DatasetFormatError(f"{path} is an index of format {version}, not {FILE_FORMAT}; scan again")
    body = body.rstrip(b"\n")
    if _digest(str(hash_), body) != digest:
        raise DatasetFormatError(f"{path} was changed after it was saved; scan again")
    try:
        index = _parse(json.loads(body))
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetFormatError(f"{path} is an index of another version ({error!r}); scan again") from None
    # The digest proves that these bytes were written together with this hash.
    index.__dict__["hash"] = hash_
    return index


def _digest(hash_: str, body: bytes) -> str:
    return hashlib.sha256(hash_.encode() + b"\n" + body).hexdigest()


def _compact(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _plain(name: str, value: Any) -> Any:
    return asdict(value) if name == "flow" and value is not None else value


def _column(values: Sequence[Any]) -> Any:
    """Return a column as it is written: each distinct value once if values repeat."""
    keys = [json.dumps(value) for value in values]
    distinct = {key: position for position, key in enumerate(dict.fromkeys(keys))}
    if 4 * len(distinct) > len(values):
        return list(values)
    return {"values": [json.loads(key) for key in distinct], "of": [distinct[key] for key in keys]}


def _parse(content: dict[str, Any]) -> Index:
    columns = {name: _values(name, column) for name, column in content["columns"].items()}
    # What clips and measurements did not have when the file was written has its default.
    listed = [name for name in _LISTED if name in columns or name not in _ADDED]
    present = [name for name in _MEASURED if f"measured.{name}" in columns]
    measured = [Measurement(**row) for row in _rows(columns, present, "measured.")]
    columns["measured"] = measured
    clips = [ClipRecord(**row) for row in _rows(columns, (*listed, "measured"))]
    return Index(
        name=content["name"],
        class_names=tuple(content["class_names"]),
        clips=tuple(clips),
        notes=tuple(content["notes"]),
    )


def _values(name: str, column: Any) -> Sequence[Any]:
    if isinstance(column, dict):
        distinct = [_restored(name, value) for value in column["values"]]
        return [distinct[position] for position in column["of"]]
    return [_restored(name, value) for value in column] if name in _NESTED else list(column)


def _restored(name: str, value: Any) -> Any:
    if name == "official":
        return tuple((number, subset) for number, subset in value)
    if name == "other_labels":
        return tuple(value)
    return FlowFiles(**value) if name == "flow" and value is not None else value


def _rows(columns: dict[str, Sequence[Any]], names: Sequence[str], prefix: str = "") -> Iterator[dict[str, Any]]:
    for values in zip(*(columns[prefix + name] for name in names), strict=True):
        yield dict(zip(names, values, strict=True))
