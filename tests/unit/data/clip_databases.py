"""Databases of clips as IBM's action-recognition-pytorch writes them with an old pyarrow, made with a current one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow


def serialized(value: Any) -> bytes:
    """Return what `pyarrow.serialize` wrote of numbers, bytes and sequences."""
    header = bytes(16)
    sink = pyarrow.BufferOutputStream()
    batch = pyarrow.record_batch([_union([value])], names=["list"])
    with pyarrow.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return header + content


def _union(values: Sequence[Any]) -> Any:
    """Return objects as an array of a dense union, with a child for each type."""
    children: list[list[Any]] = [[], [], []]
    kinds, offsets = [], []
    for value in values:
        kind = 0 if isinstance(value, int) else 1 if isinstance(value, bytes) else 2
        kinds.append(kind)
        offsets.append(len(children[kind]))
        children[kind].append(value)
    inner = _union([part for value in children[2] for part in value]) if children[2] else pyarrow.nulls(0)
    ends = np.cumsum([0, *(len(value) for value in children[2])])
    arrays = [
        pyarrow.array(children[0], pyarrow.int64()),
        pyarrow.array(children[1], pyarrow.binary()),
        pyarrow.ListArray.from_arrays(pyarrow.array(ends, pyarrow.int32()), inner),
    ]
    return pyarrow.UnionArray.from_dense(
        pyarrow.array(kinds, pyarrow.int8()), pyarrow.array(offsets, pyarrow.int32()), arrays
    )


def write(path: Path, clips: Mapping[str, Any], keys: Sequence[str] | None = None) -> None:
    with lmdb.open(str(path), subdir=False, map_size=1 << 22, lock=False) as database, database.begin(write=True) as t:
        for key, value in clips.items():
            t.put(key.encode(), value if isinstance(value, bytes) else serialized(value))
        t.put(b"__keys__", serialized([key.encode() for key in keys or clips]))
