"""Small trees of empty files, and of real frames where a test decodes them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow
from pyarrow import parquet

from data.index.listing import Listing
from data.index.records import ListedClip, Subset


def lay_out(root: Path, files: Mapping[str, str] | None = None, empty: Iterable[str] = ()) -> Path:
    """Return `root` after writing `files` with their text and `empty` ones below it."""
    for name, text in [*(files or {}).items(), *((name, "") for name in empty)]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def frames(folder: str, count: int = 3, name: str = "%05d.jpg", first: int = 1) -> list[str]:
    """Return the paths of a folder of frames."""
    return [f"{folder}/{name % number}" for number in range(first, first + count)]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Return the path of a tar archive of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_table(
    path: Path, rows: Sequence[Mapping[str, object]], class_names: Sequence[str] = (), *, rows_in_group: int = 2
) -> Path:
    """Return the path of a Parquet table with the names of classes as Hugging Face's `datasets` writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(list(rows))
    if class_names:
        features = {"label": {"names": list(class_names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, row_group_size=rows_in_group)
    return path


def by_id(listing: Listing) -> dict[str, ListedClip]:
    return {clip.id: clip for clip in listing.clips}


def sides(listing: Listing, split: int = 1) -> dict[str, Subset | None]:
    return {clip.id: clip.subset(split) for clip in listing.clips}
