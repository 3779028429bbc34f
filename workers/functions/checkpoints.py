"""Checkpoints of a person's own function: one file that gives back what the function handed over, in the same form.

The file is a zip archive. Its first member, `checkpoint.json`, says how far the trial was and the form of the content:

    none    nothing was handed over
    bytes   `content`
    json    `content`: values that JSON gives back unchanged
    torch   `content`: what `torch.save` wrote of a state dict; read with `weights_only`, so that no code in it runs
    file    `content/NAME`
    folder  `content/NAME/...`
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hpo.functions.trial import FunctionError
from hpo.protocol import Measurement

from ..checkpoints.folder import Writable, Writer, open_file, verify
from ..checkpoints.reference import FUNCTION_CHECKPOINT
from ..errors import CheckpointError

ABOUT: Final = FUNCTION_CHECKPOINT
_CONTENT: Final = "content"
_FORM_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint in a file."""

    path: Path
    form: str
    epoch: int
    """Epochs done."""
    curve: tuple[Measurement, ...]
    params: Mapping[str, Any]
    """The configuration it belongs to, with its seed."""

    def content(self, folder: Path) -> object:
        """Return what the function had handed over; a file or a folder is put into a new folder below `folder`.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            with open_file(self.path) as file, zipfile.ZipFile(file) as archive:
                return _READERS[self.form](archive, folder)
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint {self.path} cannot be read ({error})") from error


def writer(value: object, *, epoch: int, curve: list[Measurement], params: Mapping[str, Any]) -> Writer:
    """Return what writes a checkpoint.

    Raises:
        FunctionError: `value` is of a form that cannot be kept; what it writes raises it too.
    """
    form, add = _form_of(value)
    about = {
        "form": form,
        "version": _FORM_VERSION,
        "epoch": epoch,
        "curve": [one.model_dump() for one in curve],
        "params": dict(params),
    }

    def write(file: Writable) -> None:
        # Files may have times that a zip archive cannot hold, such as the year 1970 in an image of a container.
        with zipfile.ZipFile(_Unseekable(file), "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            archive.writestr(ABOUT, json.dumps(about))
            add(archive)

    return write


def read(path: Path) -> Kept:
    """Return what a checkpoint is, after checking its content against its name.

    Raises:
        CheckpointError: it is damaged, or none of a function.
    """
    verify(path)
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            about = json.loads(archive.read(ABOUT))
        curve = tuple(Measurement.model_validate(one) for one in about["curve"])
        found = Kept(path=path, form=about["form"], epoch=about["epoch"], curve=curve, params=about["params"])
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no checkpoint of a function ({error})") from error
    if found.form not in _READERS:
        raise CheckpointError(f"{path} has the form {found.form!r}, which this version does not know")
    return found


def _form_of(value: object) -> tuple[str, Callable[[zipfile.ZipFile], None]]:
    if value is None:
        return "none", lambda _: None
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes", lambda archive: archive.writestr(_CONTENT, bytes(value))
    if isinstance(value, str | os.PathLike):
        return _of_path(Path(value))
    if "torch" not in sys.modules and (text := _as_json(value)) is not None:
        return "json", lambda archive: archive.writestr(_CONTENT, text)
    return "torch", lambda archive: archive.writestr(_CONTENT, _as_torch(value))


def _of_path(path: Path) -> tuple[str, Callable[[zipfile.ZipFile], None]]:
    if path.is_file():
        return "file", lambda archive: archive.write(path, f"{_CONTENT}/{path.name}")
    if path.is_dir():
        return "folder", lambda archive: _add_folder(archive, path)
    raise FunctionError(f"the checkpoint {str(path)!r} is taken for a path, and there is no such file or folder")


def _add_folder(archive: zipfile.ZipFile, folder: Path) -> None:
    root = f"{_CONTENT}/{folder.resolve().name}"
    archive.writestr(f"{root}/", b"")
    for path in _below(folder, {folder.resolve()}):
        name = f"{root}/{path.relative_to(folder).as_posix()}"
        if path.is_dir():
            archive.writestr(f"{name}/", b"")
        elif path.is_file():
            archive.write(path, name)


def _below(folder: Path, above: set[Path]) -> Iterator[Path]:
    """Yield what is in a folder and its folders, links among them: what a link leads to may be gone at the resume.

    Raises:
        FunctionError: a link leads to a folder that it is in.
    """
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir():
            if (place := path.resolve()) in above:
                raise FunctionError(f"the checkpoint cannot be kept: the link {path} leads to a folder that it is in")
            yield from _below(path, above | {place})


def _as_json(value: object) -> str | None:
    """Return a value as JSON; None where JSON would give back another one, such as a list for a tuple."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return text if _is_same(json.loads(text), value) else None


def _is_same(found: object, value: object) -> bool:
    if type(found) is not type(value):
        return False
    if isinstance(found, dict) and isinstance(value, dict):
        return found.keys() == value.keys() and all(_is_same(found[key], value[key]) for key in found)
    if isinstance(found, list) and isinstance(value, list):
        return len(found) == len(value) and all(map(_is_same, found, value))
    return bool(found == value)


def _as_torch(value: object) -> bytes:
    import torch

    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an object of the person's raises when it is pickled
        reason = (str(error).splitlines() or [""])[0][:300]
        raise FunctionError(
            f"the checkpoint of type {type(value).__name__} cannot be kept ({type(error).__name__}: {reason}): hand "
            "over bytes, a path, or a dict of tensors, numbers and texts"
        ) from error
    return file.getvalue()


def _read_torch(archive: zipfile.ZipFile, _: Path) -> object:
    import torch

    return torch.load(io.BytesIO(archive.read(_CONTENT)), map_location="cpu", weights_only=True)


def _read_path(archive: zipfile.ZipFile, folder: Path) -> Path:
    """Put the file or folder below a new folder, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="resumed-", dir=folder))
    for name in _inner_names(archive):
        target = place.joinpath(*PurePosixPath(name).parts[1:])
        if name.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    return next(iter(place.iterdir()))


def _inner_names(archive: zipfile.ZipFile) -> Iterator[str]:
    for name in archive.namelist():
        parts = PurePosixPath(name).parts
        if parts[:1] == (_CONTENT,):
            if ".." in parts or len(parts) < 2:
                raise ValueError(f"the name {name!r} leads out of the archive")
            yield name


_READERS: Final[Mapping[str, Callable[[zipfile.ZipFile, Path], object]]] = {
    "none": lambda archive, folder: None,
    "bytes": lambda archive, folder: archive.read(_CONTENT),
    "json": lambda archive, folder: json.loads(archive.read(_CONTENT)),
    "torch": _read_torch,
    "file": _read_path,
    "folder": _read_path,
}


class _Unseekable(io.RawIOBase):
    """A file that is only ever written to at its end, so that its digest is that of what was written."""

    def __init__(self, file: Writable) -> None:
        self._file: Any = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return int(self._file.write(bytes(data)))

    def flush(self) -> None:
        self._file.flush()
