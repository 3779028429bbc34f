"""Recognising the format of a weights file by its first bytes, and saying what other files are."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..errors import WeightsError

TORCH, SAFETENSORS, ARRAYS, MATLAB = "PyTorch", "safetensors", "a pickle of arrays", "MATLAB"
_SAVE = "save one with torch.save(model.state_dict(), path)"
_PEEK_BYTES = 512
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# The number that PyTorch's files before version 1.6 begin with, as a pickle.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Of other formats: the first bytes, and what such a file is and what to do.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file itself: run git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", f"it is HDF5, of Keras or MATLAB 7.3, which is not read: load it there and {_SAVE}"),
    (b"\x1f\x8b", "it is compressed by gzip: unpack it"),
    (b"BZh", "it is compressed by bzip2: unpack it"),
    (b"\xfd7zXZ", "it is compressed by xz: unpack it"),
    (b"\x93NUMPY", f"it is a single NumPy array: {_SAVE}"),
    (b"<", "it is a web page, as a failed download leaves: download the file itself"),
)


def format_of(path: Path) -> str:
    """Return the format of a file; raise WeightsError, in one sentence, for a file of none of the formats."""
    try:
        start = _start(path)
    except OSError as error:
        raise _unreadable(path, f"{error.strerror}; let this user read it, or name another") from error
    if not start:
        raise _unreadable(path, "it is empty: copy or download it again")
    if start.startswith(_ZIP):
        return _format_of_zip(path)
    kind = _kind(start, path.suffix)
    if kind is None:
        raise _unreadable(path, _what(start, path.suffix))
    return kind


def _start(path: Path) -> bytes:
    """Return the first bytes of a file; raise OSError if it may not be read."""
    if path.is_dir():
        raise _unreadable(path, "it is a folder: name a file in it")
    if not path.exists():
        raise WeightsError(f"the weights file {path} does not exist")
    if not path.is_file():
        # Opening a pipe would wait for whoever writes into it.
        raise _unreadable(path, "it is a pipe or a device, not a file")
    with path.open("rb") as file:
        return file.read(_PEEK_BYTES)


def _kind(start: bytes, suffix: str) -> str | None:
    """Return the format of a file that begins with `start`, or None if it is not one that is read."""
    if any(start.startswith(beginning) for beginning, _ in _OTHERS):
        return None
    if start.startswith(b"MATLAB 5.0"):
        return MATLAB
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return SAFETENSORS
    if start.startswith(_OLD_TORCH[: len(start)]):
        return TORCH
    # Python 2 wrote pickles without a first byte of their own; their name is all that tells.
    return ARRAYS if start.startswith(_PICKLE) or suffix == ".pkl" else None


def _what(start: bytes, suffix: str) -> str:
    """Return what a file is that is not read."""
    for beginning, what in _OTHERS:
        if start.startswith(beginning):
            return what
    if b'"weight_map"' in start or (suffix == ".json" and b'"metadata"' in start):
        return f"it is the index of a model in several files, which are not joined here: load it and {_SAVE}"
    if _is_text(start):
        return "it is a text: name the file of the weights themselves"
    if suffix == ".onnx":
        return f"it is a graph of ONNX, which is not read: {_SAVE}"
    return f"it is not a file of PyTorch, safetensors, Caffe2, Paddle or MATLAB: {_SAVE}"


def _is_text(start: bytes) -> bool:
    """Return whether a file that begins with `start` is a text in UTF-8; its last letter may be cut."""
    text = start.decode("utf-8", errors="ignore")
    is_utf8 = len(start) - len(text.encode()) < 4
    return is_utf8 and all(letter.isprintable() or letter in "\t\n\r" for letter in text)


def _format_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise _unreadable(path, "it is cut short or damaged: copy or download it again") from None
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise _unreadable(path, f"it is a program of TorchScript, which is not run here: {_SAVE}")
    if any(name.endswith("data.pkl") for name in names):
        return TORCH
    if any(name.endswith(".npy") for name in names):
        raise _unreadable(path, f"it is an archive of NumPy, which is not read: {_SAVE}")
    if any(name.endswith(".weights.h5") for name in names):
        raise _unreadable(path, f"it is a model of Keras, which is not read: load it there and {_SAVE}")
    raise _unreadable(path, "it is a ZIP archive without a state dict: unpack it and name the file inside")


def _unreadable(path: Path, what: str) -> WeightsError:
    return WeightsError(f"{path} cannot be read: {what}")
