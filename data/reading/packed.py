"""Videos within larger files: members of a tar archive, and cells of a Parquet table.

A clip's `member` says where its video is in the file at its `path`:

    v_Archery_g01_c01.avi@1536+20480             a tar archive: a name for messages, the first byte, the number of bytes
    v_Archery_g01_c01.avi@video#17               a Parquet table: the column, and the row, counted from 0
"""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import DatasetError
from ..index.records import ListedClip

if TYPE_CHECKING:
    from collections.abc import Sequence

_IN_TAR = re.compile(r"(?P<name>.*)@(?P<start>\d+)\+(?P<size>\d+)", re.DOTALL)
_IN_TABLE = re.compile(r"(?P<name>.*)@(?P<column>[^@]*)#(?P<row>\d+)", re.DOTALL)
_GROUPS_KEPT = 2
"""Row groups of Parquet files that are in memory at once: threads read neighbouring rows."""


def tar_member(name: str, start: int, size: int) -> str:
    """Return the member of a clip whose video is `size` bytes of a tar archive from byte `start` on."""
    return f"{name}@{start}+{size}"


def table_member(name: str, column: str, row: int) -> str:
    """Return the member of a clip whose video is in a row of a Parquet table, counted from 0."""
    return f"{name}@{column}#{row}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedVideo:
    """A video within a larger file, which can be opened as a file of its own."""

    path: Path
    """The file around it."""
    member: str

    def __str__(self) -> str:
        name, _, place = self.member.rpartition("@")
        return f"{self.path}: row {place.rpartition('#')[2]}" if "#" in place else f"{self.path}: {name}"

    def is_file(self) -> bool:
        return self.path.is_file()

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader | io.BytesIO:
        """Open the video's bytes for reading.

        Raises:
            OSError: the file around it cannot be read, or holds no such video.
        """
        if (found := _IN_TAR.fullmatch(self.member)) is not None:
            window = _Window(self.path.open(mode, buffering=0), int(found["start"]), int(found["size"]))
            return io.BufferedReader(window)
        found = _IN_TABLE.fullmatch(self.member)
        if found is None:
            raise FileNotFoundError(f"there is no member {self.member!r}")
        return io.BytesIO(_tables.cell(self.path, found["column"], int(found["row"])))

    def size(self) -> int:
        """Return the number of bytes."""
        found = _IN_TAR.fullmatch(self.member)
        if found is not None:
            return int(found["size"])
        with self.open() as file:
            return file.seek(0, os.SEEK_END)


VideoFile = Path | PackedVideo
"""A file, or a part of one."""


def video_file(clip: ListedClip, root: Path) -> VideoFile:
    """Return where the video of a clip is."""
    path = root / clip.path
    return PackedVideo(path=path, member=clip.member) if clip.member else path


def size_of(file: VideoFile) -> int:
    """Return the number of bytes of a video."""
    return file.size() if isinstance(file, PackedVideo) else file.stat().st_size


class _Window(io.RawIOBase):
    """A part of an open file as a file."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        count = min(len(buffer), max(0, self._size - self._at))
        content = os.pread(self._file.fileno(), count, self._start + self._at)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Tables:
    """Row groups of Parquet files, of which the last ones read stay in memory."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._groups: OrderedDict[tuple[object, ...], Sequence[Any]] = OrderedDict()
        self._firsts: dict[tuple[object, ...], list[int]] = {}

    def cell(self, path: Path, column: str, row: int) -> bytes:
        """Return the bytes in a cell, which holds bytes or `{"bytes": ..., "path": ...}`.

        Raises:
            OSError: the file cannot be read, or has no such cell.
        """
        arrow = pyarrow()
        stat = path.stat()
        state = (path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        with self._lock:
            try:
                return self._find(state, path, column, row)
            except (arrow.ArrowException, KeyError, IndexError) as error:
                raise OSError(f"it cannot be read as a Parquet table: {error}") from error

    def _find(self, state: tuple[object, ...], path: Path, column: str, row: int) -> bytes:
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            if state not in self._firsts:
                sizes = (table.metadata.row_group(number).num_rows for number in range(table.num_row_groups))
                self._firsts[state] = [0, *accumulate(sizes)]
            firsts = self._firsts[state]
            group = bisect_right(firsts, row) - 1
            key = (*state, column, group)
            if key not in self._groups:
                self._groups[key] = table.read_row_group(group, columns=[column]).column(column)
                while len(self._groups) > _GROUPS_KEPT:
                    self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        value = cast("Any", self._groups[key])[row - firsts[group]].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise KeyError(f"row {row} holds no video")
        return content


_tables = _Tables()


def pyarrow() -> Any:
    """Return pyarrow, which an extra installs.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DatasetError(
            "Parquet tables and IBM's LMDBs need pyarrow, which is not installed: pip install 'video-hpo[parquet]'"
        ) from None
    return pyarrow
