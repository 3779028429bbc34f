"""Reading the frames of a clip one after the other: of a video, a folder of images, an image or an LMDB."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VideoError
from ..index.listing import IMAGE_SUFFIXES, is_pipe_or_device
from ..index.records import FlowFiles, ListedClip
from .images import decode_image, resize_image
from .lmdb_frames import keys_below, read_values
from .numbering import Pattern, in_order
from .packed import video_file
from .serialized import read_frames
from .video import decode_frames, scaled_size

if TYPE_CHECKING:
    from ..arrays import ByteArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One frame as an encoded image."""

    name: str
    """Its path or key, for error messages."""
    content: bytes


def clip_frames(
    clip: ListedClip, root: Path, *, short_side: int | None = None, keep: Container[int] | None = None
) -> Iterator[ByteArray]:
    """Yield the frames of a clip from its start to its end as RGB arrays (H, W, 3).

    All frames have the size of the first one, scaled down to `short_side` by area averaging.

    Args:
        keep: numbers of the frames to yield, where 0 is the clip's first; None for all.

    Raises:
        VideoError: a frame is missing or cannot be decoded.
    """
    if clip.kind == "video":
        file = video_file(clip, root)
        yield from decode_frames(file, short_side=short_side, start=clip.start, end=clip.end, keep=keep)
        return
    size: tuple[int, int] | None = None
    for number, picture in enumerate(pictures(clip, root)):
        wanted = keep is None or number in keep
        if size is not None and not wanted:
            continue
        frame = decode_image(picture.content, picture.name)
        if size is None:
            size = scaled_size(frame.shape[1], frame.shape[0], short_side)
        if wanted:
            yield resize_image(frame, *size)


def pictures(clip: ListedClip, root: Path) -> Iterator[Picture]:
    """Yield the frames of a clip that consists of images, undecoded.

    Raises:
        VideoError: a frame is missing or cannot be read.
    """
    path = root / clip.path
    if clip.kind == "lmdb" and clip.member:
        for number, content in enumerate(read_frames(path, clip.member, clip.start, clip.end), start=clip.start + 1):
            yield Picture(name=f"{clip.path}:{clip.member}, frame {number}", content=content)
        return
    if clip.kind == "lmdb":
        for key in _frame_keys(clip, path):
            yield Picture(name=f"{clip.path}:{key}", content=read_values(path, [key])[0])
        return
    for file in [path] if clip.kind == "image" else frame_files(clip, root):
        yield Picture(name=str(file), content=read_file(file))


def frame_files(clip: ListedClip, root: Path) -> list[Path]:
    """Return the image files of a clip that is a folder of frames, from its start to its end.

    Raises:
        VideoError: there is no such folder, or one of the frames is missing.
    """
    folder = root / clip.path
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise VideoError(
            f"{folder} cannot be read as a folder of frames: {error.strerror}", status="missing"
        ) from error
    if not clip.frame_name:
        names = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
    return [folder / name for name in in_order(names, clip.frame_name)[clip.start : clip.end]]


def flow_folder(clip: ListedClip, root: Path) -> Path | None:
    """Return the folder of a clip's horizontal flow, or None for a clip without listed flow."""
    return None if clip.flow is None else (root / Pattern.parse(clip.flow.x).name(clip.flow.first)).parent


def flow_paths(clip: ListedClip, root: Path) -> list[tuple[Path, Path]]:
    """Return the flow files (x, y) of each pair of neighbouring frames, up to the first that is missing."""
    if clip.flow is None:
        return []
    return list(_pairs(clip.flow, root, clip.start))


def decode_flow_pair(paths: tuple[Path, Path], contents: Sequence[bytes]) -> list[ByteArray]:
    """Return the images (H, W) that two flow files hold.

    Raises:
        VideoError: one cannot be decoded, or they differ in size.
    """
    planes = [decode_image(content, str(path), colour=False) for path, content in zip(paths, contents, strict=True)]
    if planes[0].shape != planes[1].shape:
        raise VideoError(f"{paths[0]} and {paths[1]} differ in size: they must have the same")
    return planes


def read_file(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        VideoError: it cannot be read.
    """
    if is_pipe_or_device(path):
        raise VideoError(f"{path} is a pipe or a device, not a file")
    try:
        return path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise VideoError(
            f"{path} cannot be read: {error.strerror}", status="missing" if missing else "corrupt"
        ) from error


def _pairs(flow: FlowFiles, root: Path, start: int) -> Iterator[tuple[Path, Path]]:
    x, y, number = Pattern.parse(flow.x), Pattern.parse(flow.y), flow.first + start
    while (pair := (root / x.name(number), root / y.name(number)))[0].is_file() and pair[1].is_file():
        yield pair
        number += 1


def _frame_keys(clip: ListedClip, path: Path) -> list[str]:
    prefix = Pattern.parse(clip.frame_name).prefix
    return in_order(keys_below(path, prefix), clip.frame_name)[clip.start : clip.end]
