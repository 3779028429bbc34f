"""Reading LMDB databases of frames: opened read-only, once per process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import lmdb

from ..errors import VideoError

META_KEY = "__meta__"
"""Key of the JSON text that describes the database; all other keys are frames."""

_lock = Lock()
_opened: dict[Path, tuple[object, lmdb.Environment]] = {}


def data_file(path: Path) -> Path:
    """Return the data file of the LMDB at `path`, which may be a folder or the file itself."""
    return path / "data.mdb" if path.is_dir() else path


def encode_key(key: str) -> bytes:
    """Return the bytes of a key, which may contain a file name that is not UTF-8."""
    return os.fsencode(key)


def keys_below(path: Path, prefix: str) -> list[str]:
    """Return the keys that begin with `prefix`, sorted by their bytes.

    Raises:
        VideoError: there is no such database, or it is damaged.
    """
    return [os.fsdecode(key) for key in _keys(path, encode_key(prefix))]


def read_values(path: Path, keys: Iterable[str]) -> list[bytes]:
    """Return the values of `keys`, in order.

    Raises:
        VideoError: there is no such database or key, or it is damaged.
    """
    values = []
    try:
        with _environment(path).begin() as transaction:
            for key in keys:
                value = transaction.get(encode_key(key))
                if value is None:
                    raise VideoError(f"{path} holds no {key!r}", status="truncated")
                values.append(bytes(value))
    except lmdb.Error as error:
        raise VideoError(f"{path} cannot be read as an LMDB: {error}") from error
    return values


def find_value(path: Path, key: str) -> bytes | None:
    """Return the value of `key`, or None if there is no such key.

    Raises:
        VideoError: there is no such database, or it is damaged.
    """
    try:
        with _environment(path).begin() as transaction:
            value = transaction.get(encode_key(key))
    except lmdb.Error as error:
        raise VideoError(f"{path} cannot be read as an LMDB: {error}") from error
    return None if value is None else bytes(value)


@contextmanager
def borrowed_value(path: Path, key: str) -> Iterator[memoryview]:
    """Give the value of `key` where it lies in the file, without reading what is not looked at, until the context ends.

    Raises:
        VideoError: there is no such database or key, or it is damaged.
    """
    try:
        with _environment(path).begin(buffers=True) as transaction:
            value = transaction.get(encode_key(key))
            if value is None:
                raise VideoError(f"{path} holds no {key!r}", status="missing")
            yield value
    except lmdb.Error as error:
        raise VideoError(f"{path} cannot be read as an LMDB: {error}") from error


def _keys(path: Path, prefix: bytes) -> list[bytes]:
    found = []
    try:
        with _environment(path).begin() as transaction, transaction.cursor() as cursor:
            at = cursor.set_range(prefix)
            while at and cursor.key().startswith(prefix):
                found.append(bytes(cursor.key()))
                at = cursor.next()
    except lmdb.Error as error:
        raise VideoError(f"{path} cannot be read as an LMDB: {error}") from error
    return found


def _environment(path: Path) -> lmdb.Environment:
    """Return the open database, opened again if its file was replaced; read-only and unlocked, it survives a fork."""
    try:
        stat = data_file(path).stat()
    except OSError as error:
        raise VideoError(f"{path} cannot be read as an LMDB: {error.strerror}", status="missing") from error
    state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    with _lock:
        known = _opened.get(path)
        if known is not None and known[0] == state:
            return known[1]
        if known is not None:
            known[1].close()
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, max_spare_txns=64
        )
        _opened[path] = (state, environment)
        return environment
