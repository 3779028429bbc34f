"""Sequential decoding of videos with PyAV.

Frames are numbered in the order in which the decoder returns them, and turned as the file says. Timestamps and header
counts do not number them: in MPEG-4 AVI files with B-frames, timestamps are out of order and counts too high.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, cast

import numpy as np

from ..clip_status import Status
from ..errors import DISK_ERRORS, DiskError, VideoError
from ..index.listing import is_pipe_or_device
from ..index.records import Measurement
from .endings import cut_short
from .frames_hash import FramesHash
from .holes import hole_in
from .packed import PackedVideo, VideoFile, size_of
from .soundness import Promise, Tally, slack_frames, video_fault
from .turning import UPRIGHT, Turn

if TYPE_CHECKING:
    from av.codec.context import CodecContext
    from av.container import InputContainer
    from av.video.frame import VideoFrame

    from ..arrays import ByteArray

MIN_FRAMES = 2
"""A video with fewer frames shows no motion and is reported as `short`."""

# A file that is in fact a playlist must not make the demuxer open other files or addresses.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "avi,mov,mp4,matroska,webm,mpeg,mpegts,mpegvideo,m4v,flv,asf,ogg,gif,mxf,rm,nut,dv,ivf,"
    "h264,hevc,mjpeg,yuv4mpegpipe",
}

_BRIGHTNESS_FIRST = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"})


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    """The result of decoding a video once."""

    n_frames: int
    width: int
    height: int
    fps: float
    codec: str
    header_frames: int
    """Number of frames in the container's header; 0 if it has none."""
    frames_hash: str
    """Hash of the brightness of all frames, see `frames_hash`."""
    damaged: int
    """How many of the frames the decoder marks as corrupt."""
    turn: Turn
    """How the frames lie in the file."""
    promise: Promise
    tally: Tally


def scaled_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return (width, height) with the shorter side at `short_side`; never larger than given."""
    shorter = min(width, height)
    if short_side is None or shorter <= short_side:
        return width, height
    return (
        max(1, round(width * short_side / shorter)),
        max(1, round(height * short_side / shorter)),
    )


def decode_frames(
    path: VideoFile,
    *,
    short_side: int | None = None,
    start: int = 0,
    end: int | None = None,
    keep: Container[int] | None = None,
) -> Iterator[ByteArray]:
    """Yield the frames `start` to `end` (exclusive) of a video as RGB arrays (H, W, 3), in decode order.

    Frames are turned and mirrored as the file's display matrix says. All have the size of the first one, scaled down to
    `short_side` by area averaging.

    Args:
        keep: numbers, counted from `start`, of the frames to yield; None for all.

    Raises:
        VideoError: the file is not a video or cannot be decoded to its end.
    """
    from av.video.reformatter import Interpolation, VideoReformatter  # what reads prepared frames needs no PyAV

    reformatter = VideoReformatter()
    size: tuple[int, int] | None = None
    method, turn = Interpolation.BILINEAR, UPRIGHT
    for number, frame in enumerate(islice(_raw_frames(path), start, end)):
        if size is None:
            size, turn = scaled_size(frame.width, frame.height, short_side), Turn.of(frame)
            if size != (frame.width, frame.height):
                method = Interpolation.AREA
        if keep is not None and number not in keep:
            continue
        picture = reformatter.reformat(frame, width=size[0], height=size[1], format="rgb24", interpolation=method)
        yield np.ascontiguousarray(turn.apply(cast("ByteArray", picture.to_ndarray())))


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoLength:
    """How long a video is."""

    frames: int
    """That decode."""
    fps: float
    """0 if the file does not say it."""


def video_length(path: VideoFile) -> VideoLength:
    """Return the length of a video, whose frames are decoded but not converted: headers may claim too many.

    Raises:
        VideoError: the file is not a video or cannot be decoded to its end.
    """
    with opened(path) as container:
        rate = container.streams.video[0].average_rate
        count = sum(1 for _ in _decoded(container, path))
    return VideoLength(frames=count, fps=float(rate) if rate is not None else 0.0)


def inspect_video(path: VideoFile, *, start: int = 0, end: int | None = None) -> VideoFacts:
    """Return the facts about the frames `start` to `end` of a video, decoded once without converting them.

    Raises:
        VideoError: the file is not a video or cannot be decoded to its end.
    """
    width = height = n_frames = damaged = 0
    shown, tally, turn = FramesHash(), Tally(), UPRIGHT
    with opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        promise = Promise.of(container, stream)
        for frame in islice(_decoded(container, path, tally), start, end):
            if n_frames == 0:
                turn = Turn.of(frame)
                width, height = turn.size(frame.width, frame.height)
            shown.update(turn.apply(_brightness(frame)))
            n_frames += 1
            damaged += frame.is_corrupt
    return VideoFacts(
        n_frames=n_frames,
        width=width,
        height=height,
        fps=float(rate) if rate is not None else 0.0,
        codec=promise.codec,
        header_frames=promise.frames,
        frames_hash=shown.hexdigest(),
        damaged=damaged,
        turn=turn,
        promise=promise,
        tally=tally,
    )


def measure_video(path: VideoFile, *, start: int = 0, end: int | None = None) -> Measurement:
    """Return the measurement of the frames `start` to `end` of a video; an unusable video is not an error.

    Raises:
        DiskError: the disk fails, and nothing is known about the video.
    """
    try:
        if not path.is_file():
            return Measurement(status="missing", note="there is no such file")
        if size_of(path) == 0:
            return Measurement(status="empty", note="the file has no bytes")
        sha1, cut, hole = segment_sha1(path, start, end), cut_short(path), hole_in(path) if end is None else None
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise DiskError(f"{path} cannot be read: {error.strerror}; check the disk or the mount") from error
        return Measurement(status="corrupt", note=f"the file cannot be read: {_reason(error)}")
    try:
        facts = inspect_video(path, start=start, end=end)
    except VideoError as error:
        status: Status = "truncated" if cut else "corrupt"
        return Measurement(status=status, sha1=sha1, note=cut or str(error))
    fault = _fault(facts, cut, hole, start, end)
    if fault is not None:
        return Measurement(status=fault[0], sha1=sha1, note=fault[1])
    return Measurement(
        status="ok",
        n_frames=facts.n_frames,
        width=facts.width,
        height=facts.height,
        fps=facts.fps,
        codec=facts.codec,
        sha1=sha1,
        frames_hash=facts.frames_hash,
        turned=facts.turn.name,
    )


def frames_fault(n_frames: int, start: int, end: int | None, *, least: int = MIN_FRAMES) -> tuple[Status, str] | None:
    """Return what is wrong with a clip of which `n_frames` decode between `start` and `end`, or None.

    Lists made from headers claim a frame or two too many, which is tolerated.
    """
    if n_frames == 0:
        return ("truncated", f"it has no frame {start}") if start else ("corrupt", "no frame can be decoded")
    if end is not None and end - start - n_frames > slack_frames(end - start):
        return "truncated", f"{n_frames} of the {end - start} listed frames are there"
    if n_frames < least:
        return "short", f"only {n_frames} frame decodes; a clip needs {least}"
    return None


def _fault(
    facts: VideoFacts, cut: str | None, hole: str | None, start: int, end: int | None
) -> tuple[Status, str] | None:
    """Return what is wrong with a video that decodes, or None."""
    if facts.n_frames and end is None:
        fault = video_fault(facts.promise, facts.tally, cut, hole)
        if fault is not None:
            return fault
    elif facts.damaged:  # what lies around a segment does not matter
        return "corrupt", f"{facts.damaged} of {facts.n_frames} frames are damaged"
    return frames_fault(facts.n_frames, start, end)


def _brightness(frame: VideoFrame) -> ByteArray:
    """Return the grey picture of a frame, (H, W), without conversion if the decoder already made one."""
    if frame.format.name not in _BRIGHTNESS_FIRST:
        return cast("ByteArray", frame.to_ndarray(format="gray"))
    plane = frame.planes[0]
    flat: ByteArray = np.frombuffer(cast("bytes", plane), np.uint8)
    return flat.reshape(-1, plane.line_size)[: frame.height, : frame.width]


def _raw_frames(path: VideoFile) -> Iterator[VideoFrame]:
    with opened(path) as container:
        yield from _decoded(container, path)


@contextmanager
def opened(path: VideoFile) -> Iterator[InputContainer]:
    """Open a video for reading, with no access to other files or addresses.

    Raises:
        VideoError: it cannot be opened, or is not a video.
    """
    import av

    if is_pipe_or_device(path.path if isinstance(path, PackedVideo) else path):
        raise VideoError(f"{path} is a pipe or a device, not a video")
    with ExitStack() as stack:
        try:
            source = stack.enter_context(path.open()) if isinstance(path, PackedVideo) else str(path.absolute())
            # Not `options`: older PyAV passes these to each stream too, and crashes where a container shows more
            # streams later (mpg, flv).
            container = av.open(source, mode="r", metadata_errors="replace", container_options=dict(_OPEN_OPTIONS))
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{path} cannot be opened as a video: {_reason(error)}") from error
        stack.enter_context(container)
        if not container.streams.video:
            raise VideoError(f"{path} holds no video stream")
        decoder = cast("CodecContext | None", container.streams.video[0].codec_context)
        if decoder is None:
            raise VideoError(f"{path} has a video stream of an unknown codec, or its header is damaged")
        # Callers decode many files at once, so more threads per file would only cost switching.
        decoder.thread_count = 1
        yield container


def _decoded(container: InputContainer, path: VideoFile, tally: Tally | None = None) -> Iterator[VideoFrame]:
    """Yield the frames; with a tally, all streams are read, and what was read is counted."""
    import av

    count = 0
    try:
        for frame in container.decode(video=0) if tally is None else _counted(container, tally):
            count += 1
            yield frame
    except av.FFmpegError as error:
        raise VideoError(f"{path} cannot be decoded after frame {count}: {_reason(error)}") from error
    except IndexError as error:  # PyAV does not know a stream that damage made the demuxer see
        raise VideoError(f"{path} cannot be decoded after frame {count}: another stream begins there") from error


def _counted(container: InputContainer, tally: Tally) -> Iterator[VideoFrame]:
    shown = container.streams.video[0]
    for packet in container.demux():
        if packet.stream is not shown:
            if packet.stream.type == "audio":
                tally.read(packet)
            continue
        tally.read(packet)
        for frame in shown.decode(packet):
            tally.show(frame)
            yield frame


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def segment_sha1(path: VideoFile, start: int, end: int | None) -> str:
    """Return the hash of a file's bytes, different for each segment."""
    return segments_sha1(path, [(start, end)])[0]


def segments_sha1(path: VideoFile, segments: Sequence[tuple[int, int | None]]) -> list[str]:
    """Return the hash of each segment (start, end) of a file, which is read once; see `segment_sha1`."""
    with path.open("rb") as file:
        whole = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False))
    hashes = []
    for start, end in segments:
        digest = whole.copy()
        if start or end is not None:
            digest.update(f"|{start}|{end}".encode())
        hashes.append(digest.hexdigest())
    return hashes
