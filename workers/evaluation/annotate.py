"""A copy of a video with its predicted classes on the pictures, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import av
import cv2
import numpy as np

from data import VideoError
from data.reading.video import decode_frames

from .lettering import drawable
from .predict import Prediction, Segment

if TYPE_CHECKING:
    from av.video.stream import VideoStream

    from data.arrays import ByteArray

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_INK, _BAR, _SHADE = (255, 255, 255), (80, 200, 120), 0.35
_CODECS: Final = ("libx264", "mpeg4")
"""The first that this FFmpeg has is taken."""


def write_annotated(
    prediction: Prediction,
    folder: Path,
    *,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the copy as `NAME.classes.mp4` into a folder, which is made, and return its path.

    NAME is that of the video without its suffix, or `name`.

    Each frame names the class of its stretch of the time line, with its probability as a bar, and where the video is.

    Raises:
        VideoError: the video cannot be decoded any more, or the copy cannot be written.
    """
    target = folder / f"{name or prediction.path.stem}.classes.mp4"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # FFmpeg takes a relative path such as `pipe:1.classes.mp4` for something else than a file.
        with av.open(str(target.absolute()), "w") as container:
            stream = None
            for number, (frame, segment) in enumerate(_annotated(prediction)):
                if stream is None:
                    rate = Fraction(prediction.fps).limit_denominator(1001)
                    stream = cast("VideoStream", container.add_stream(_codec(), rate=rate))
                    stream.height, stream.width = frame.shape[:2]
                    stream.pix_fmt = "yuv420p"
                _draw(frame, segment, number / max(1, prediction.frames - 1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                if progress is not None and number % 32 == 0:
                    progress(number, prediction.frames)
            if stream is not None:
                container.mux(stream.encode())
    except (OSError, av.FFmpegError) as error:
        raise VideoError(f"{target} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    return target


def _codec() -> str:
    return next(name for name in _CODECS if name in av.codecs_available)


def _annotated(prediction: Prediction) -> Iterator[tuple[ByteArray, Segment]]:
    """Yield each frame, cut to even sides as the codecs need them, and the stretch that it is in."""
    segments = iter(prediction.timeline)
    segment = next(segments)
    for number, frame in enumerate(decode_frames(prediction.path)):
        while number / prediction.fps >= segment.end and (following := next(segments, None)) is not None:
            segment = following
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        yield np.ascontiguousarray(frame[:height, :width]), segment


def _draw(frame: ByteArray, segment: Segment, passed: float) -> None:
    """Draw a stretch's class and probability on a frame (H, W, 3), and how much of the video has passed."""
    height, width = frame.shape[:2]
    scale = max(0.35, height / 480)
    label = f"{drawable(segment.label, segment.number)} {segment.score:.2f}"
    (text_width, text_height), base = cv2.getTextSize(label, _FONT, scale, 1)
    scale *= min(1.0, (width - 8) / max(1, text_width))
    band = min(height, text_height + base + 10)
    frame[:band] = (frame[:band] * _SHADE).astype(np.uint8)
    cv2.putText(frame, label, (4, text_height + 4), _FONT, scale, _INK, 1, cv2.LINE_AA)
    frame[max(0, band - 3) : band, : round(width * segment.score)] = _BAR
    frame[-2:, : round(width * passed)] = _INK
