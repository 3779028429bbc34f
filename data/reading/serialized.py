"""Clips in databases of IBM's action-recognition-pytorch: values that `pyarrow.serialize` wrote, up to pyarrow 11.

A value is `(number of frames, JPEG, JPEG, ..., label)`. Its bytes are the numbers of tensors, arrays and buffers that
follow, of which such a clip has none, in 16 bytes, and an Arrow stream of one record batch. Current pyarrow has no
`deserialize` any more, but reads the stream; no code in it is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import VideoError
from .lmdb_frames import borrowed_value
from .packed import pyarrow

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER_BYTES = 16


def read_names(path: Path) -> list[str]:
    """Return the keys of the clips in a database, in the order of its list.

    Raises:
        VideoError: its `__keys__` cannot be read.
        DatasetError: pyarrow is not installed.
    """
    with borrowed_value(path, "__keys__") as content:
        names = _deserialized(content, f"{path}:__keys__").as_py()
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise VideoError(f"{path}:__keys__ is no list of names")
    return [name.decode("utf-8", "surrogateescape") for name in names]


def read_label(path: Path, key: str) -> tuple[int, int]:
    """Return the number of frames of a clip and its label; of its frames, nothing is read.

    Raises:
        VideoError: the value is not that of a clip.
    """
    with borrowed_value(path, key) as content:
        values = _values(content, f"{path}:{key}")
        return values[0].as_py(), values[len(values) - 1].as_py()


def read_frames(path: Path, key: str, start: int, end: int | None) -> list[bytes]:
    """Return the frames `start` to `end` (exclusive) of a clip as JPEG.

    Raises:
        VideoError: the value is not that of a clip, or lacks frames.
    """
    with borrowed_value(path, key) as content:
        values = _values(content, f"{path}:{key}")
        claimed, there = values[0].as_py(), len(values) - 2
        if claimed != there:
            raise VideoError(f"{path}:{key} has {there} of its {claimed} frames", status="truncated")
        frames = [values[number].as_py() for number in range(1, there + 1)[start:end]]
    if not all(isinstance(frame, bytes) for frame in frames):
        raise VideoError(f"{path}:{key} holds something else than frames")
    return frames


def _values(content: memoryview, name: str) -> Sequence[Any]:
    """Return the parts of a clip's value: a number, frames and a label."""
    found = getattr(_deserialized(content, name), "values", None)
    if found is None or len(found) < 2 or not all(isinstance(found[n].as_py(), int) for n in (0, len(found) - 1)):
        raise VideoError(f"{name} is not (number of frames, frames ..., label)")
    values: Sequence[Any] = found
    return values


def _deserialized(content: memoryview, name: str) -> Any:
    """Return the object in a value as a scalar of pyarrow.

    Raises:
        VideoError: it is damaged, or of another form.
    """
    arrow = pyarrow()
    if any(content[:_HEADER_BYTES]):
        raise VideoError(f"{name} is no value of pyarrow.serialize that consists of numbers, bytes and lists only")
    try:
        batch = arrow.ipc.open_stream(arrow.py_buffer(content)[_HEADER_BYTES:]).read_next_batch()
        batch.validate(full=True)
        return batch.column(0)[0].value
    except (arrow.ArrowException, AttributeError, IndexError, OSError, StopIteration) as error:
        raise VideoError(f"{name} cannot be read as a value of pyarrow.serialize: {error}") from error
