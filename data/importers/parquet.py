"""Parquet tables of videos, as Hugging Face's `datasets` writes them.

    data/train-00000-of-00002.parquet            tables, on the side that their name or folder says
        video   struct<bytes, path>              the bytes of a video file, or its path below the root; or binary
        label   int64                            its class, named by the `ClassLabel` in the table's metadata; or a name
        group   string                           what the video was cut from, if the table has it

The column of videos is that with the feature `Video`, else the one of bytes; that of labels is called `label`, or is
the only one with the feature `ClassLabel`. Clips are called `<table>/<row>-<file's name>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.listing import Listing, is_file, require_folder, safe_path
from ..reading.media import kind_of
from ..reading.packed import pyarrow, table_member
from .samples import GROUPS, LABELS, Sample, files_of, group_in, label_in, listing_of_samples, missing_notes, side_of

_NO_LABEL = -1
"""What `datasets` writes as the label of a test list without labels."""
_MAGIC = b"PAR1"


def read_parquet(root: Path) -> Listing:
    """Return the rows of all tables below `root`; no video is read.

    Raises:
        DatasetNotFoundError: there is no table.
        DatasetFormatError: a table is damaged, or lacks videos or labels; the message names it.
        DatasetError: pyarrow is not installed.
    """
    require_folder(root)
    files = _files(root)
    if not files:
        raise DatasetNotFoundError(f"{root} holds no table *.parquet; add it")
    tables = [_Table.of(path) for path in files]
    names = {table.class_names: table.path for table in tables}
    if len(names) > 1:
        one, two = list(names.values())[:2]
        raise DatasetFormatError(f"{one} and {two} name different classes: write them with the same ClassLabel")
    samples = [sample for table in tables for sample in table.samples(root)]
    if not samples:
        raise DatasetNotFoundError(f"the tables in {root} have no rows")
    return listing_of_samples(root, samples, class_names=tables[0].class_names, notes=missing_notes(files, root))


def is_parquet(root: Path) -> bool:
    """Return whether there is a Parquet table that is not one of metadata."""
    return any(_begins_as_table(path) for path in _files(root)[:1])


def _files(root: Path) -> list[Path]:
    return [path for path in files_of(root, ".parquet") if path.name != "metadata.parquet" and is_file(path)]


def _begins_as_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """One file, and which of its columns are read."""

    path: Path
    video: str
    label: str
    in_struct: bool
    """Whether the column of videos has bytes and paths."""
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, path: Path) -> _Table:
        arrow = pyarrow()
        try:
            schema = arrow.parquet.read_schema(path)
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(path, error) from None
        features = _features(schema.metadata or {})
        video = _video_column(path, schema, features, arrow)
        label, names = _label_column(path, schema, features)
        in_struct = arrow.types.is_struct(schema.field(video).type)
        return cls(path=path, video=video, label=label, in_struct=in_struct, class_names=names)

    def samples(self, root: Path) -> Iterator[Sample]:
        """Yield the rows. Of videos only the paths and whether there are bytes is read."""
        arrow = pyarrow()
        relative, side = self.path.relative_to(root), side_of(self.path, root)
        try:
            with arrow.parquet.ParquetFile(self.path) as file:
                known = set(file.schema_arrow.names)
                columns = [self.label, *(name for name in GROUPS if name in known)]
                columns += [f"{self.video}.path"] if self.in_struct else []
                rows = file.read(columns=columns).to_pylist()
                by_path = self.in_struct and _without_bytes(file.metadata, f"{self.video}.bytes")
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from None
        for number, row in enumerate(rows):
            where = f"{self.path}: row {number}"
            listed = (row.get(self.video) or {}).get("path") if self.in_struct else None
            stem = PurePosixPath(listed or "").stem
            label, _ = label_in({"label": row[self.label]}, where)
            in_file = safe_path(listed or "", where) if by_path else ""
            yield Sample(
                id=f"{relative.with_suffix('').as_posix()}/{number:06d}{f'-{stem}' if stem else ''}",
                path=in_file or relative.as_posix(),
                member="" if in_file else table_member(PurePosixPath(listed or "").name, self.video, number),
                label=None if label == _NO_LABEL else label,
                group=group_in(row),
                stem=stem,
                side=side,
                where=where,
                problem="there is no such video file" if in_file and kind_of(root / in_file) != "video" else "",
            )


def _without_bytes(metadata: Any, column: str) -> bool:
    """Return whether all cells of a column are empty, by the statistics of the file."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = (group.column(place) for place in range(group.num_columns))
        statistics = next((chunk.statistics for chunk in chunks if chunk.path_in_schema == column), None)
        if statistics is None or not statistics.has_null_count or statistics.null_count < group.num_rows:
            return False
    return bool(metadata.num_row_groups)


def _damaged(path: Path, error: Exception) -> DatasetFormatError:
    return DatasetFormatError(f"{path} cannot be read as a Parquet table ({error}): copy it again")


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return what `datasets` says of the columns, if it has written the table."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _video_column(path: Path, schema: Any, features: dict[str, Any], arrow: Any) -> str:
    found = [name for name, feature in features.items() if _kind(feature) == "Video" and name in schema.names]
    if not found:
        found = [each.name for each in schema if _holds_bytes(each.type, arrow)]
    if len(found) == 1:
        return str(found[0])
    named = [name for name in found if name in ("video", "mp4", "video_bytes")]
    if len(named) == 1:
        return str(named[0])
    what = f"several columns of bytes, {' and '.join(map(quoted, found))}" if found else "no column of videos"
    raise DatasetFormatError(f"{path} has {what}: call that of the videos video, as struct<bytes, path> or binary")


def _holds_bytes(kind: Any, arrow: Any) -> bool:
    if arrow.types.is_struct(kind):
        return "bytes" in [kind.field(number).name for number in range(kind.num_fields)]
    return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))


def _label_column(path: Path, schema: Any, features: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    classes = [name for name, feature in features.items() if _kind(feature) == "ClassLabel" and name in schema.names]
    named = [name for name in LABELS if name in schema.names]
    chosen = next((name for name in named if name in classes), None)
    chosen = chosen or (classes[0] if len(classes) == 1 else None) or (named[0] if named else None)
    if chosen is None:
        raise DatasetFormatError(f"{path} has no column label; its columns are {', '.join(map(quoted, schema.names))}")
    return chosen, tuple(str(name) for name in features.get(chosen, {}).get("names", ()) or ())
