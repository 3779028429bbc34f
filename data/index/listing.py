"""The listing that an importer returns, and functions that importers share to read lists and find files."""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DatasetFormatError, DatasetNotFoundError, quoted
from .records import ListedClip, Subset

VIDEO_SUFFIXES = frozenset(
    {
        *(".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v", ".flv", ".wmv", ".asf"),
        *(".gif", ".3gp", ".3g2", ".ts", ".m2ts", ".mts", ".ogv", ".ogm", ".ogg", ".vob", ".divx", ".xvid"),
        *(".mpe", ".mpv", ".m1v", ".m2v", ".mp4v", ".f4v", ".qt", ".mxf", ".rm", ".rmvb", ".dv", ".mod", ".nut"),
        *(".h264", ".264", ".hevc", ".h265", ".265", ".ivf", ".y4m", ".mjpg", ".mjpeg", ".amv"),
    }
)
DOUBTFUL_VIDEO_SUFFIXES = frozenset({".gif", ".ogg"})
"""Of videos, but beside others they are previews and sound."""
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_WHOLE = re.compile(r"[0-9]{1,9}")
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_ENCODING_BYTES = 1 << 12
"""Bytes of a text that are looked at for its encoding."""
_files_read: ContextVar[set[Path]] = ContextVar("files_read")
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The clips of a data set before any video is opened."""

    class_names: tuple[str, ...]
    """A class's position is its label."""
    clips: tuple[ListedClip, ...]
    notes: tuple[str, ...] = ()
    """Notes for the user, such as the number of videos that no list names."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Of clips that cannot be used whatever is in their files: a clause that says why, by their ids."""


def require_folder(root: Path) -> None:
    """Raise DatasetNotFoundError unless `root` is a folder."""
    if not root.is_dir():
        raise DatasetNotFoundError(f"there is no folder {root}; give the folder of the data set")


def is_pipe_or_device(path: Path) -> bool:
    """Return whether there is a pipe or a device, of which reading may never end; False for what does not exist."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def files_read() -> Iterator[set[Path]]:
    """Collect the lists that are read meanwhile."""
    files: set[Path] = set()
    token = _files_read.set(files)
    try:
        yield files
    finally:
        _files_read.reset(token)


def read_text(path: Path) -> str:
    """Return the text of a list in UTF-8, UTF-16 or marked UTF-32, without its mark and with newlines at line ends.

    Raises:
        DatasetFormatError: the file is other text, or no file at all.
    """
    if is_pipe_or_device(path):
        raise DatasetFormatError(f"{path} is a pipe or a device, not a file; replace the list")
    _files_read.get(set()).add(path)
    content = path.read_bytes()
    try:
        text = content.decode(_encoding(content)).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DatasetFormatError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from None
    return text if "\n" in text else text.replace("\r", "\n")


def _encoding(content: bytes) -> str:
    """Return the encoding of a text by its mark, or by the zero bytes that UTF-16 has between plain letters."""
    marked = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), None)
    if marked is not None:
        return marked
    head = content[:_ENCODING_BYTES]
    for first, encoding in enumerate(("utf-16-be", "utf-16-le")):
        zeros, others = head[first::2], head[1 - first :: 2]
        if zeros and 2 * zeros.count(0) > len(zeros) and 0 not in others:
            return encoding
    return "utf-8-sig"


def first_line(path: Path) -> str:
    """Return the first line of a text file, without reading the rest; what is no text gives unknown characters."""
    with path.open("rb") as file:
        return text_of(file.read(_ENCODING_BYTES)).replace("\r", "\n").partition("\n")[0]


def text_of(head: bytes) -> str:
    """Return the first bytes of a file as text, see `read_text`; what is no text gives unknown characters."""
    return head.decode(_encoding(head), "replace")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return (line number from 1, text without surrounding space) of every line with content.

    Raises:
        DatasetFormatError: the file is not UTF-8 text.
    """
    numbered = enumerate((line.strip() for line in read_text(path).split("\n")), start=1)
    return [(number, line) for number, line in numbered if line]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DatasetFormatError: the file is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{path} is not JSON ({error}); replace the file") from None


def whole_number(text: str) -> int | None:
    """Return the whole number in `text`, or None if it is not one to nine plain digits."""
    return int(text) if _WHOLE.fullmatch(text) else None


def safe_path(listed: str, where: str) -> str:
    """Return a list's path with forward slashes, checked to stay inside the data set.

    Raises:
        DatasetFormatError: the path is absolute, contains `..`, or is not a path; the message names `where`.
    """
    path = listed.replace("\\", "/")
    parts = PurePosixPath(path).parts
    if path.startswith("/") or _DRIVE.match(path):
        raise DatasetFormatError(f"{where}: {quoted(listed)} is absolute; write it from the data set's folder on")
    if not parts or ".." in parts or "\0" in path:
        raise DatasetFormatError(f"{where}: {quoted(listed)} is not a path below the data set's folder")
    return "/".join(parts)


def official_sides(labelled: Collection[str]) -> tuple[dict[str, Subset], tuple[str, ...]]:
    """Return the side that each of the lists `train`, `validation` and `test` counts as, and notes for the user.

    Without a labelled test list the validation list is the official test list, as in papers.

    Args:
        labelled: the lists that have labels.

    Raises:
        DatasetFormatError: there is no train list with labels.
    """
    if "train" not in labelled:
        raise DatasetFormatError("there is no train list with labels: add one, nothing can be trained without it")
    if "validation" in labelled and "test" not in labelled:
        note = "the validation list is sealed as the official test list, because there is no other"
        return {"train": "train", "validation": "test"}, (note,)
    return {"train": "train", "validation": "validation", "test": "test"}, ()


def find_case_insensitive(folder: Path, name: str) -> Path | None:
    """Return the entry of `folder` called `name`, ignoring case if there is no exact match; None without one."""
    if not is_dir(folder):
        return None
    exact = folder / name
    names = names_in(folder)
    if name in names:
        return exact
    matches = sorted(entry for entry in names if spelling(entry) == spelling(name))
    return folder / matches[0] if matches else None


def find_folder(root: Path, relative: str) -> Path | None:
    """Return the folder `relative` below `root`, in any case, or None."""
    folder: Path | None = root
    for part in PurePosixPath(relative).parts:
        if folder is not None:
            folder = find_case_insensitive(folder, part)
    return folder if folder is not None and is_dir(folder) else None


def matching_files(root: Path, folders: Iterable[str], pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    """Return the files with names that match `pattern`, sorted, of the first of `folders` below `root` that has any."""
    for name in folders:
        folder = find_folder(root, name)
        if folder is not None:
            found = _matches(folder, pattern)
            if found:
                return found
    return []


def matching_files_anywhere(
    root: Path, folders: Iterable[str], pattern: re.Pattern[str]
) -> list[tuple[re.Match[str], Path]]:
    """Return the same as `matching_files`, or of the first other folder up to three deep, as archives unpack."""
    return matching_files(root, folders, pattern) or next(
        (found for folder in folders_below(root) if (found := _matches(folder, pattern))), []
    )


def _matches(folder: Path, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    # Folders of frames are searched too: no object is made for a name that does not match.
    matches = sorted(name for name in names_in(folder) if pattern.fullmatch(name))
    found = ((pattern.fullmatch(name), folder / name) for name in matches)
    return [(match, path) for match, path in found if match is not None and is_file(path)]


def folders_below(root: Path, depth: int = 3) -> Iterator[Path]:
    """Yield the folders below `root`, each before those in it; what cannot be read is left out."""
    try:
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))
    except PermissionError:
        return
    for name in names:
        yield root / name
        if depth > 1:
            yield from folders_below(root / name, depth - 1)


def entries_of(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder in the order of their names; none of a folder that may not be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return []


def names_in(folder: Path) -> list[str]:
    """Return the names of the entries of a folder, in any order; none of a folder that may not be read."""
    try:
        return os.listdir(folder)
    except PermissionError:
        return []


def is_dir(path: Path) -> bool:
    """Return whether there is a folder; what this process may not look at is none, but a failing disk is an error."""
    try:
        return path.is_dir()
    except PermissionError:
        return False


def is_file(path: Path) -> bool:
    """Return whether there is a file; what this process may not look at is none, but a failing disk is an error."""
    try:
        return path.is_file()
    except PermissionError:
        return False


def exists(path: Path) -> bool:
    """Return whether there is anything; what this process may not look at is not there, a failing disk is an error."""
    try:
        return path.exists()
    except PermissionError:
        return False


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, faster than a path does: folders of frames have many."""
    stem, _, ending = name.rpartition(".")
    return f".{ending.lower()}" if stem else ""


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_closed(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link that leads nowhere or in a circle, or a folder that may not be read."""
    if not is_folder(entry):
        return entry.is_symlink() and not os.path.exists(entry.path)
    try:
        os.scandir(entry.path).close()
    except PermissionError:
        return True
    return False


def parent_of_classes(root: Path, folders: Iterable[str], class_names: Sequence[str]) -> Path:
    """Return the first of `folders` below `root`, or of all up to three deep, that holds the folder of a class.

    Raises:
        DatasetNotFoundError: none of them does.
    """
    spelled = frozenset(map(spelling, class_names))
    known = (find_folder(root, name) for name in folders)
    for folder in chain((folder for folder in known if folder is not None), folders_below(root)):
        if any(spelling(name) in spelled and is_dir(folder / name) for name in names_in(folder)):
            return folder
    raise DatasetNotFoundError(
        f"{root} has no class folder such as {root / 'videos' / class_names[0]}; "
        "put one folder of videos per class there"
    )


class FileTree:
    """The files in the folders of a folder, found by path without regard to case and Unicode form.

    A folder in a folder of the same name (`brush_hair/brush_hair/`, as archives unpack) counts as one.
    """

    def __init__(self, folder: Path) -> None:
        self._spelled: dict[str, str] = {}
        self._by_stem: dict[str, set[str]] = {}
        for entry in entries_of(folder):
            if is_folder(entry):
                self._add(entry.name, Path(entry.path))
                inner = Path(entry.path) / entry.name
                if is_dir(inner):
                    self._add(f"{entry.name}/{entry.name}", inner)
        self._exact = frozenset(self._spelled.values())

    def _add(self, below: str, folder: Path) -> None:
        for file in entries_of(folder):
            if file.name.startswith("."):
                continue
            relative = f"{below}/{file.name}"
            listed = f"{below.partition('/')[0]}/{file.name}"
            self._spelled.setdefault(spelling(listed), relative)
            if is_video_name(file.name):
                self._by_stem.setdefault(spelling(os.path.splitext(listed)[0]), set()).add(relative)

    def find(self, relative: str) -> str | None:
        """Return the path below the folder in its spelling on disk, or None.

        A list may leave out the suffix of a video or have another one, if the folder has one video of that name.
        """
        if relative in self._exact:
            return relative
        known = self._spelled.get(spelling(relative))
        if known is not None:
            return known
        stem = os.path.splitext(relative)[0] if is_video_name(relative) else relative
        named = self._by_stem.get(spelling(stem), set())
        named = {name for name in named if suffix_of(name) not in DOUBTFUL_VIDEO_SUFFIXES} or named
        return next(iter(named)) if len(named) == 1 else None

    def videos(self) -> frozenset[str]:
        """Return the paths of all video files, by their suffix."""
        return frozenset(path for path in self._exact if is_video_name(path))


def is_video_name(name: str) -> bool:
    """Return whether a name has the suffix of a video, in any case."""
    return suffix_of(name) in VIDEO_SUFFIXES


def spelling(name: str) -> str:
    """Return a text that two names share if they differ in case or in their Unicode form only."""
    return unicodedata.normalize("NFC", name).lower()
