"""Decoding with torchcodec, for those who ask for it and where it loads.

It finds frames by their timestamps. So it is used for MP4, QuickTime, Matroska and WebM files, of which it shows as
many frames as were counted, of the same size, each with a time of its own. Others are decoded by PyAV: in AVI files
with B-frames, timestamps are out of order, and frames get lost. So are videos that the file says to mirror, which
torchcodec shows unmirrored.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import DecoderUnavailableError, VideoError
from .images import resize_image
from .packed import VideoFile
from .video import decode_frames, opened, scaled_size

if TYPE_CHECKING:
    from ..arrays import ByteArray

_HEADS: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""What stands in bytes 4 to 7 of an MP4 or QuickTime file."""
_EBML: Final = b"\x1a\x45\xdf\xa3"
_AT_ONCE: Final = 16
"""Frames that are asked for at once."""


@cache
def torchcodec_fault() -> str | None:
    """Return why torchcodec cannot be used here, in a clause, or None where it can."""
    try:
        import_module("torchcodec.decoders")
    except ModuleNotFoundError as error:
        return f"the package {error.name} is not installed"
    except Exception as error:  # its loader raises what it pleases, with pages of text
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ")
        return f"it does not load: {first[:200]}"
    return None


def require_torchcodec() -> None:
    """Check that torchcodec loads.

    Raises:
        DecoderUnavailableError: it does not.
    """
    fault = torchcodec_fault()
    if fault is not None:
        raise DecoderUnavailableError(
            f"torchcodec cannot decode here, {fault}: pip install 'video-hpo[torchcodec]' and install FFmpeg with its "
            "shared libraries (as `apt install ffmpeg` does), or leave `decoder` out"
        )


def torchcodec_frames(
    file: VideoFile,
    *,
    counted: int,
    size: tuple[int, int],
    turned: str = "",
    short_side: int | None = None,
    start: int = 0,
    end: int | None = None,
    keep: Container[int] | None = None,
) -> Iterator[ByteArray]:
    """Yield the same frames as `video.decode_frames`: equal without scaling and with 8 bits, else nearly so.

    Args:
        counted: number of frames from `start` to `end` that PyAV decodes.
        size: their (width, height).
        turned: how they are turned to be shown, see `turning.Turn.name`.

    Raises:
        VideoError: the file is not a video or cannot be decoded to its end.
        DecoderUnavailableError: torchcodec does not load.
    """
    require_torchcodec()
    with ExitStack() as stack:
        decoder = _chosen(file, stack, counted=counted, size=size, turned=turned, start=start, end=end)
        if decoder is None:
            yield from decode_frames(file, short_side=short_side, start=start, end=end, keep=keep)
            return
        width, height = scaled_size(*size, short_side)
        wanted = [number for number in range(counted) if keep is None or number in keep]
        for first in range(0, len(wanted), _AT_ONCE):
            numbers = [start + number for number in wanted[first : first + _AT_ONCE]]
            try:
                frames = decoder.get_frames_at(numbers).data.numpy()
            except (RuntimeError, IndexError, ValueError) as error:
                raise VideoError(
                    f"{file} cannot be decoded by torchcodec after frame {numbers[0]}: {_first_line(error)}"
                ) from error
            for frame in cast("ByteArray", frames):
                yield resize_image(frame, width, height)


def is_left_to_pyav(
    file: VideoFile, *, counted: int, size: tuple[int, int], turned: str = "", start: int = 0, end: int | None = None
) -> bool:
    """Return whether PyAV decodes a video here too; arguments as for `torchcodec_frames`.

    Raises:
        DecoderUnavailableError: torchcodec does not load.
        VideoError: the file cannot be opened.
    """
    require_torchcodec()
    with ExitStack() as stack:
        return _chosen(file, stack, counted=counted, size=size, turned=turned, start=start, end=end) is None


def _chosen(
    file: VideoFile,
    stack: ExitStack,
    *,
    counted: int,
    size: tuple[int, int],
    turned: str,
    start: int,
    end: int | None,
) -> Any:
    """Return torchcodec's decoder, or None where PyAV should decode."""
    decoder = None if _is_mirrored(turned) else _opened(file, stack)
    if decoder is None or not _agrees(decoder, start, counted, size, whole=end is None) or not _has_times(file):
        return None
    return decoder


def _opened(file: VideoFile, stack: ExitStack) -> Any:
    """Return a decoder, or None where it opens no such file.

    It gets an open file, and so no name that it could take for an address.
    """
    decoders: Any = import_module("torchcodec.decoders")
    try:
        stream = stack.enter_context(file.open("rb"))
        head = stream.read(8)
        if head[4:] not in _HEADS and not head.startswith(_EBML):
            return None
        stream.seek(0)
        return decoders.VideoDecoder(stream, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    except (RuntimeError, ValueError, OSError):
        return None


def _agrees(decoder: Any, start: int, counted: int, size: tuple[int, int], *, whole: bool) -> bool:
    """Return whether torchcodec shows the frames that were counted, of their size, up to the last."""
    there = len(decoder) - start
    if there < counted or (whole and there != counted):
        return False
    try:
        last = decoder.get_frame_at(start + counted - 1).data
    except (RuntimeError, IndexError, ValueError):
        return False
    return tuple(last.shape[:2]) == (size[1], size[0])


def _is_mirrored(turned: str) -> bool:
    """Return whether what shows a video is no rotation: each step is a reflection, and two of them are a rotation."""
    return len([step for step in turned.split("+") if step]) % 2 == 1


def _has_times(file: VideoFile) -> bool:
    """Return whether every frame has a time of its own: of two with one time, torchcodec shows one twice."""
    import av

    with opened(file) as container:
        try:
            packets = container.demux(container.streams.video[0])
            times = [packet.pts for packet in packets if packet.size and not packet.is_discard]
        except (av.FFmpegError, IndexError):
            return False
    return None not in times and len(set(times)) == len(times)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
