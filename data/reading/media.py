"""Finding videos, images and folders of frames on disk, by path or by name."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import DatasetFormatError
from ..index.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..index.records import FlowFiles, Kind

_SEARCH_DEPTH = 4
"""Levels of folders below the root that are searched."""
_PEEK_ENTRIES = 32
"""Entries of a folder that are read to see whether it holds frames."""
_NUMBERED = re.compile(r"^(.*?)(\d+)(_[xy])?(\.\w+)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Medium:
    """One video, image or folder of frames."""

    path: str
    """Below the root, with forward slashes."""
    kind: Kind

    @property
    def stem(self) -> str:
        """Name without folder and, for a file, without suffix."""
        path = PurePosixPath(self.path)
        return path.name if self.kind == "frames" else path.stem


def kind_of(path: Path) -> Kind | None:
    """Return the kind of a path, where a folder counts as frames; None if it is missing or of another kind."""
    if path.is_dir():
        return "frames"
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        return None
    return "video" if suffix in VIDEO_SUFFIXES else "image"


def media_below(root: Path, below: str = "", depth: int = _SEARCH_DEPTH) -> Iterator[Medium]:
    """Yield every video and every folder of frames below `root`, in the order of their paths.

    A folder that holds images is a folder of frames, and is not searched further.
    """
    folders = []
    for entry in sorted(os.scandir(root / below), key=lambda entry: entry.name):
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            folders.append(path)
        elif PurePosixPath(entry.name).suffix.lower() in VIDEO_SUFFIXES:
            yield Medium(path=path, kind="video")
    for path in folders:
        if holds_frames(root / path):
            yield Medium(path=path, kind="frames")
        elif depth > 1:
            yield from media_below(root, path, depth - 1)


def holds_frames(folder: Path) -> bool:
    """Return whether images are among the first entries of a folder."""
    with os.scandir(folder) as entries:
        for _, entry in zip(range(_PEEK_ENTRIES), entries, strict=False):
            if PurePosixPath(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                return True
    return False


class MediaByName:
    """The media below a root by their names without folder and suffix."""

    def __init__(self, root: Path) -> None:
        self._named: defaultdict[str, list[Medium]] = defaultdict(list)
        for medium in media_below(root):
            self._named[medium.stem].append(medium)

    def find(self, stems: Sequence[str], *, folder: str = "") -> Medium | None:
        """Return the medium named by the first of `stems` that exists, or None.

        Args:
            folder: of several media of one name, the one in a folder of this name is returned, else the first.
        """
        for stem in stems:
            named = self._named.get(stem)
            if named:
                wanted = folder.replace(" ", "_")
                inside = (m for m in named if PurePosixPath(m.path).parent.name.replace(" ", "_") == wanted)
                return next(inside, named[0])
        return None


class ListedPaths:
    """Finds the media that lists name, when their paths may start in one of several folders."""

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        """Search the root itself, then `folders` below it."""
        self._root = root
        self._folders = ["", *(name for name in folders if (root / name).is_dir())]

    def find(self, listed: str) -> Medium | None:
        """Return the medium at the path `listed` in one of the folders, or None."""
        for position, folder in enumerate(self._folders):
            path = f"{folder}/{listed}" if folder else listed
            kind = kind_of(self._root / path)
            if kind is not None:
                # The next path is most likely in the same folder.
                self._folders.insert(0, self._folders.pop(position))
                return Medium(path=path, kind=kind)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameNames:
    """Names of the files in a folder of frames: printf patterns, without the folder."""

    frame: str = ""
    """Empty if the names have no pattern: then all images count, in natural order."""
    flow_x: str = ""
    flow_y: str = ""

    def flow_files(self, folder: str) -> FlowFiles | None:
        """Return the flow in the same `folder` as the frames, or None."""
        if not self.flow_x:
            return None
        place = folder.replace("%", "%%")
        return FlowFiles(x=f"{place}/{self.flow_x}", y=f"{place}/{self.flow_y}")


def frame_names(folder: Path) -> FrameNames:
    """Return the patterns of the names of frames and flow images in `folder`.

    Known are `img_00001.jpg` with `flow_x_00001.jpg` (TSN, mmaction2), `00001.jpg` with `00001_x.jpg` (IBM),
    `frame000001.jpg`, and any other prefix before the number.

    Raises:
        DatasetFormatError: the folder also holds flow, and the frames do not have exactly one pattern.
    """
    patterns: dict[str, int] = defaultdict(int)
    for name in os.listdir(folder):
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            patterns[_pattern(name)] += 1
    flow = sorted(name for name in patterns if _flow_of(name))
    x = next((name for name in flow if _flow_of(name) == "x"), "")
    y = next((name for name in flow if _flow_of(name) == "y"), "")
    frames = [name for name in patterns if name not in flow]
    if not (x and y):
        x = y = ""
    if len(frames) != 1 and flow:
        raise DatasetFormatError(f"{folder} mixes flow images with frames of several names; put them into two folders")
    if len(frames) != 1:
        return FrameNames()
    return FrameNames(frame=frames[0], flow_x=x, flow_y=y)


def _pattern(name: str) -> str:
    found = _NUMBERED.match(name)
    if found is None:
        return ""
    prefix, number, axis, suffix = found[1].replace("%", "%%"), found[2], found[3] or "", found[4]
    return f"{prefix}%0{len(number)}d{axis}{suffix}"


def _flow_of(pattern: str) -> str:
    """Return `x` or `y` for a pattern of flow images, else an empty string."""
    for axis in ("x", "y"):
        if pattern.startswith(f"flow_{axis}_") or f"d_{axis}." in pattern:
            return axis
    return ""
