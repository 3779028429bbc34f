"""Finding videos, images and folders of frames on disk, by path or by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import DISK_ERRORS, DatasetFormatError
from ..index.listing import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    entries_of,
    is_dir,
    is_file,
    is_folder,
    names_in,
    suffix_of,
)
from ..index.records import FlowFiles, Kind

_SEARCH_DEPTH = 4
"""Levels of folders below the root that are searched."""
_NUMBERED = re.compile(r"^(.*?)(\d+)((?:[_-]flow)?[_-][xyuv])?(\.\w+)$", re.IGNORECASE)
_THUMBNAILS = frozenset({"folder", "thumb", "thumbs", "thumbnail", "cover", "poster", "preview", "albumart"})
_FLOW_PREFIX = re.compile(r"(?:flow[_-]?)?([xyuv])[_-]", re.IGNORECASE)
"""What stands before the number of a flow image."""
_AXES = {"x": "x", "y": "y", "u": "x", "v": "y"}


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
    if is_dir(path):
        return "frames"
    suffix = path.suffix.lower()
    if not is_file(path) or suffix not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        return None
    return "video" if suffix in VIDEO_SUFFIXES else "image"


def media_below(root: Path, below: str = "", depth: int = _SEARCH_DEPTH) -> Iterator[Medium]:
    """Yield every video and every folder of frames below `root`, in the order of their paths.

    A folder that holds images is a folder of frames, and is not searched further unless it also holds videos: these
    are never hidden by pictures, of which there may be one for each video.
    """
    folders = []
    for entry in entries_of(root / below):
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith("."):
            continue
        if is_folder(entry):
            folders.append(path)
        elif suffix_of(entry.name) in VIDEO_SUFFIXES:
            yield Medium(path=path, kind="video")
    for path in folders:
        pictures, videos = _count_media(root / path)
        if pictures > videos:
            yield Medium(path=path, kind="frames")
        if depth > 1 and (videos or pictures <= videos):
            yield from media_below(root, path, depth - 1)


def holds_frames(folder: Path) -> bool:
    """Return whether a folder is one of frames: it holds more pictures than videos, thumbnails not counted."""
    pictures, videos = _count_media(folder)
    return pictures > videos


def _count_media(folder: Path) -> tuple[int, int]:
    """Return the numbers of pictures, thumbnails not counted, and of videos; none in a folder that may not be read."""
    pictures = videos = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                suffix = suffix_of(entry.name)
                if suffix in VIDEO_SUFFIXES:
                    videos += 1
                elif suffix in IMAGE_SUFFIXES and not is_thumbnail(entry.name):
                    pictures += _is_picture(entry)
    except PermissionError:
        return 0, 0
    return pictures, videos


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a file; a link that leads in a circle is none."""
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        return False


def is_thumbnail(name: str) -> bool:
    """Return whether a picture shows a folder or a film in a file manager or a player, and is no content."""
    return name.rpartition(".")[0].lower() in _THUMBNAILS


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameNames:
    """Names of the files in a folder of frames: printf patterns, without the folder."""

    frame: str = ""
    """Empty if the names have no pattern: then all images count, in natural order."""
    flow_x: str = ""
    flow_y: str = ""
    first_flow: int = 1
    """Number of the first flow image."""
    extra: tuple[str, ...] = ()
    """Pictures in the folder that are neither frames nor flow."""

    def flow_files(self, folder: str) -> FlowFiles | None:
        """Return the flow in the same `folder` as the frames, or None."""
        if not self.flow_x:
            return None
        place = folder.replace("%", "%%")
        return FlowFiles(x=f"{place}/{self.flow_x}", y=f"{place}/{self.flow_y}", first=self.first_flow)


def frame_names(folder: Path) -> FrameNames:
    """Return the patterns of the names of frames and flow images in `folder`.

    Known are `img_00001.jpg` with `flow_x_00001.jpg` (TSN, mmaction2), `00001.jpg` with `00001_x.jpg` (IBM),
    `frame000001.jpg`, and any other prefix before the number, padded or not. Of several series of pictures the one with
    more than half of all is that of the frames. Flow has its own numbers: many tools count it from 0.

    Raises:
        DatasetFormatError: the folder also holds flow, and no series of frames stands out.
    """
    series = _series_in(folder)
    known = [found for found in series.values() if found.axis]
    by_axis = {found.axis: found for found in known}
    flow = by_axis if len(by_axis) > 1 else {}
    frames = [found for found in series.values() if not found.axis]
    if known and not flow and all(found.loose for found in frames) and not any(found.is_named_flow for found in known):
        known, frames = [], list(series.values())  # `v_00001.jpg` without `u_00001.jpg`
    n_frames = sum(len(found.numbers) for found in frames)
    main = max(frames, key=lambda found: len(found.numbers), default=None)
    if main is None or main.loose or 2 * len(main.numbers) <= n_frames:
        if known and (main is None or main.loose or len(frames) > 1):
            raise DatasetFormatError(
                f"{folder} mixes flow images with frames of several names, or has no frames; put frames and flow into "
                "two folders"
            )
        if main is None or not flow:
            return FrameNames()
    others = frames if flow else [*frames, *known]
    extra = [name for found in others if found is not main for name in found.names]
    is_plain = not extra and not flow
    frame = "" if is_plain and main.varies else main.pattern
    if not flow:
        return FrameNames(frame=frame, extra=tuple(sorted(extra)))
    return FrameNames(
        frame=frame,
        flow_x=flow["x"].pattern,
        flow_y=flow["y"].pattern,
        first_flow=_first_flow(main, flow["x"], flow["y"]),
        extra=tuple(sorted(extra)),
    )


def flow_names(x: Path, y: Path, frames: Path) -> tuple[str, str, int] | None:
    """Return the patterns of horizontal and vertical flow in folders of their own, and the number of the first pair."""
    across, down, shown = (_longest_series(place) for place in (x, y, frames))
    if across is None or down is None:
        return None
    return across.pattern, down.pattern, _first_flow(shown, across, down)


@dataclass(kw_only=True, slots=True)
class _Series:
    """Pictures of one folder with the same text before and after their numbers."""

    prefix: str
    ending: str
    numbers: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    widths: set[int] = field(default_factory=set)
    padded: set[int] = field(default_factory=set)
    """Widths of the numbers with a zero in front."""
    loose: bool = False
    """Whether these are the pictures without a number."""

    @property
    def axis(self) -> str:
        """Return `x` or `y` for flow images, else an empty string."""
        if self.loose:
            return ""
        before, (after, _) = _FLOW_PREFIX.fullmatch(self.prefix), self.ending.rsplit(".", 1)
        letter = after[-1:] or (before[1] if before else "")
        return _AXES.get(letter.lower(), "")

    @property
    def is_named_flow(self) -> bool:
        """Return whether these can only be flow images, even without those of the other axis."""
        return "flow" in f"{self.prefix}{self.ending}".lower()

    @property
    def varies(self) -> bool:
        """Return whether some numbers have more digits than others."""
        return len(self.widths) > 1

    @property
    def pattern(self) -> str:
        width = min(self.padded or self.widths) if self.padded or not self.varies else 0
        number = f"%0{width}d" if width else "%d"
        return self.prefix.replace("%", "%%") + number + self.ending.replace("%", "%%")


def _series_in(folder: Path) -> dict[tuple[str, str], _Series]:
    series: dict[tuple[str, str], _Series] = {}
    for name in sorted(names_in(folder)):
        if suffix_of(name) not in IMAGE_SUFFIXES or name.startswith("."):
            continue
        found = _NUMBERED.match(name)
        key = ("", "") if found is None else (found[1], (found[3] or "") + found[4])
        one = series.setdefault(key, _Series(prefix=key[0], ending=key[1], loose=found is None))
        one.names.append(name)
        one.numbers.append(int(found[2]) if found else 0)
        if found:
            one.widths.add(len(found[2]))
            if found[2].startswith("0") and len(found[2]) > 1:
                one.padded.add(len(found[2]))
    return series


def _longest_series(folder: Path) -> _Series | None:
    numbered = (series for series in _series_in(folder).values() if not series.loose)
    return max(numbered, key=lambda series: len(series.numbers), default=None)


def _first_flow(frames: _Series | None, x: _Series, y: _Series) -> int:
    """Return the number of the first pair of flow images: 0, 1 or the number of the first frame.

    If they begin elsewhere, the first ones are missing, and none can be said to lead from a frame to the next. Then it
    is a number that no image has: clips that need this flow are measured as truncated, others are not concerned.
    """
    first = min(x.numbers)
    possible = {0, 1} | ({min(frames.numbers)} if frames and frames.numbers else set())
    if first != min(y.numbers) or first not in possible:
        return max(*x.numbers, *y.numbers) + 1
    return first
