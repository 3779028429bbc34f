"""Videos with a table of metadata, as `videofolder` of Hugging Face's `datasets` reads them.

    metadata.csv, metadata.jsonl                 file_name,label,group: in the root, or one in the folder of each side
    metadata.parquet                             the same columns
    train/Archery/a.mp4                          videos, by their paths from the table's folder

The label is in a column `label`, `class_name`, `class`, `category` or `action`, as a number or a name; without
one, the folder of a video is its class. A table is on the side that its folder says, else each video on that
of its own path.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from ..index.listing import (
    Listing,
    is_file,
    names_in,
    read_lines,
    read_text,
    require_folder,
    safe_path,
    whole_number,
)
from ..reading.media import kind_of
from ..reading.packed import pyarrow
from .samples import Sample, folders_of, group_in, label_in, listing_of_samples, side_of

_NAME = re.compile(r"metadata\.(csv|jsonl|parquet)")
_FILE_NAMES = ("file_name", "video_file_name")
"""Columns of paths: what they are called for one file in a row, and for the feature `video`."""
Row = Mapping[str, object]


def read_videofolder(root: Path) -> Listing:
    """Return the videos that the tables of metadata name.

    Raises:
        DatasetNotFoundError: there is no table, or none of its videos exists.
        DatasetFormatError: a row is not valid; the message names it.
    """
    require_folder(root)
    tables = _tables(root)
    if not tables:
        raise DatasetNotFoundError(f"{root} has no metadata.csv or metadata.jsonl with a column file_name; add it")
    samples = [_sample(root, table, row, where) for table in tables for row, where in _rows(table)]
    if not any(not sample.problem for sample in samples):
        raise DatasetNotFoundError(f"{root} has none of the {len(samples)} videos of {tables[0].name}")
    return listing_of_samples(root, samples)


def is_videofolder(root: Path) -> bool:
    """Return whether there is a table of metadata with a column of file names."""
    return bool(_tables(root))


def _tables(root: Path) -> list[Path]:
    found = [folder / name for folder in folders_of(root) for name in sorted(names_in(folder)) if _NAME.fullmatch(name)]
    return [path for path in found if is_file(path) and _names_files(path)]


def _names_files(path: Path) -> bool:
    if path.suffix == ".parquet":
        return True
    with path.open("rb") as file:
        first = file.readline(1 << 16).decode("utf-8-sig", "replace")
    return any(name in first for name in _FILE_NAMES)


def _rows(path: Path) -> Iterator[tuple[Row, str]]:
    """Yield the rows of a table, and where each is."""
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True)
        try:
            for row in reader:
                yield {key: value for key, value in row.items() if key}, f"{path}:{reader.line_num}"
        except csv.Error as error:
            raise DatasetFormatError(f"{path}:{reader.line_num}: is not CSV ({error})") from None
    elif path.suffix == ".jsonl":
        for number, line in read_lines(path):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetFormatError(f"{path}:{number}: is not JSON ({error})") from None
            if not isinstance(row, dict):
                raise DatasetFormatError(f"{path}:{number}: {quoted(line)} is not an object with a file_name")
            yield row, f"{path}:{number}"
    else:
        arrow = pyarrow()
        try:
            rows = arrow.parquet.read_table(path).to_pylist()
        except (arrow.ArrowException, OSError) as error:
            raise DatasetFormatError(f"{path} cannot be read as a Parquet table ({error}): copy it again") from None
        for number, row in enumerate(rows):
            yield row, f"{path}: row {number}"


def _sample(root: Path, table: Path, row: Row, where: str) -> Sample:
    listed = next((row[name] for name in _FILE_NAMES if row.get(name)), None)
    if not isinstance(listed, str):
        raise DatasetFormatError(f"{where} has no file_name: add it, or remove the row")
    path = (table.parent / safe_path(listed, where)).relative_to(root)
    label, class_name = label_in({name.lower(): _value(value) for name, value in row.items()}, where)
    if label is None:
        label = _folder_class(path)
    return Sample(
        id=path.with_suffix("").as_posix(),
        path=path.as_posix(),
        label=label,
        class_name=class_name,
        group=group_in(row),
        stem=path.stem,
        side=side_of(table, root) or side_of(root / path.parent / "_", root),
        where=where,
        problem="" if kind_of(root / path) == "video" else "there is no such video file",
    )


def _value(value: object) -> object:
    """Return a cell of a CSV file as a number, if it is one."""
    number = whole_number(value.strip()) if isinstance(value, str) else None
    return value if number is None else number


def _folder_class(path: Path) -> str | None:
    """Return the class folder of a video, or None if it is in a folder of a side or in none."""
    name = PurePosixPath(path).parent.name
    return name if name and not side_of(Path(name), Path()) and name not in {"videos", "data", "clips"} else None
