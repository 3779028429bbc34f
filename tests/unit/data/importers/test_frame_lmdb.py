"""Our LMDB of frames, and others that cannot be read; IBM's: `test_clip_lmdb`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb
import pytest

from data.errors import DatasetFormatError, DatasetNotFoundError
from data.importers.frame_lmdb import read_frame_lmdb
from data.importers.registry import recognise

META: dict[str, Any] = {
    "format": "video-hpo frames",
    "version": 1,
    "class_names": ["Run", "Walk"],
    "clips": [
        {"id": "Run/100%", "label": 0, "n_frames": 2, "group": "Run/g01", "official": [[1, "train"], [2, "test"]]},
        {"id": "Walk/b", "label": 1, "n_frames": 2, "other_labels": [0]},
    ],
}


def write(path: Path, entries: Mapping[bytes, bytes]) -> None:
    environment = lmdb.open(str(path), subdir=path.suffix == "", map_size=1 << 20)
    with environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)


@pytest.mark.parametrize(("name", "path"), [("", "."), ("frames.lmdb", "frames.lmdb")])
def test_clips_are_those_of_the_description(tmp_path: Path, name: str, path: str) -> None:
    write(tmp_path / name if name else tmp_path, {b"__meta__": json.dumps(META).encode()})
    listing = read_frame_lmdb(tmp_path)
    assert recognise(tmp_path) == "lmdb"
    first, second = listing.clips
    assert (first.path, first.kind, first.frame_name % 2) == (path, "lmdb", "Run/100%/00002")
    assert (first.label, first.group, first.official) == (0, "Run/g01", ((1, "train"), (2, "test")))
    assert (second.other_labels, second.group, second.official) == ((0,), "Walk/b", ((1, "train"),))


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not that of 'video-hpo frames'"),
        (json.dumps(META | {"version": 9}).encode(), "is not that of"),
        (json.dumps(META | {"clips": [{"id": "a"}]}).encode(), "is incomplete"),
        (json.dumps(META | {"clips": [{"id": "a", "label": 2}]}).encode(), "is incomplete.*beyond the 2 classes"),
        (json.dumps(META | {"clips": [{"id": "a", "label": 0, "official": [[1, "fit"]]}]}).encode(), "incomplete"),
    ],
)
def test_a_description_that_is_not_valid_is_named(tmp_path: Path, meta: bytes, message: str) -> None:
    write(tmp_path / "x.lmdb", {b"__meta__": meta})
    with pytest.raises(DatasetFormatError, match=rf"x\.lmdb: __meta__ .*{message}"):
        read_frame_lmdb(tmp_path)


def test_databases_of_no_side_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine.lmdb", {b"__keys__": b"\x94"})
    with pytest.raises(DatasetFormatError, match=r"mine\.lmdb is of no side: call it train\.lmdb"):
        read_frame_lmdb(tmp_path)


def test_another_database_or_none_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="holds no LMDB"):
        read_frame_lmdb(tmp_path)
    write(tmp_path / "x.lmdb", {b"a": b"b"})
    with pytest.raises(DatasetFormatError, match="has no __meta__"):
        read_frame_lmdb(tmp_path)
    (tmp_path / "x.lmdb").write_bytes(b"not a database")
    with pytest.raises(DatasetFormatError, match="cannot be read as an LMDB"):
        read_frame_lmdb(tmp_path)
