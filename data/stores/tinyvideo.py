"""Frames as small MPEG-4 videos without B-frames, with a key frame every 12: the smallest form, and slow to read.

The packets of a clip are stored one after the other without a container, so frame n is packet n, and decoding begins at
the key frame in packet `n - n % 12`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CacheError
from .planar import crop_to_rgb, to_planes
from .protocol import Box
from .shards import ShardStore

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane

    from ..arrays import ByteArray, Indices

FRAMES_PER_KEY_FRAME = 12
MPEG4_QUANTISER = 3
_FRAME_RATE = 25
_PADDING = bytes(64)
"""The decoder reads beyond the end of a packet, and PyAV does not add the padding that it needs."""


class TinyVideoStore(ShardStore):
    """Frames as MPEG-4, decoded from the key frame before the first frame needed."""

    def read_into(self, id_: str, indices: Indices, box: Box, target: ByteArray) -> None:
        """Copy `box` of the frames `indices` into `target` (T, box.height, box.width, 3)."""
        wanted, places = np.unique(indices, return_inverse=True)
        for position, frame in enumerate(self._decode(id_, [int(index) for index in wanted])):
            at = np.flatnonzero(places == position)
            luma, u, v = map(_pixels, frame.planes)
            crop_to_rgb((luma, u, v), box, target[at[0]])
            target[at[1:]] = target[at[0]]

    def _decode(self, id_: str, wanted: list[int]) -> Iterator[VideoFrame]:
        """Yield the frames `wanted`, which are in ascending order."""
        import av  # other stores need no PyAV

        shard, ends = self._records(id_)
        context = _decoder()
        following = 0
        for index in wanted:
            for number in range(max(following, index - index % FRAMES_PER_KEY_FRAME), index + 1):
                packet = shard[ends[number] : ends[number + 1]].tobytes() + _PADDING
                try:
                    frames = context.decode(av.Packet(packet))
                except av.FFmpegError as error:
                    raise CacheError(f"{id_!r} in {self.folder} is damaged ({error}); delete {self.folder}") from error
                if len(frames) != 1:
                    raise CacheError(f"frame {number} of {id_!r} in {self.folder} is damaged; delete {self.folder}")
            following = index + 1
            yield frames[0]


def encode(frames: Iterable[ByteArray]) -> Iterator[bytes]:
    """Yield one packet for each RGB frame (H, W, 3)."""
    import av

    context: VideoCodecContext | None = None
    for number, frame in enumerate(frames):
        planes = to_planes(frame)
        if context is None:
            context = _encoder(planes.shape[1], planes.shape[0] * 2 // 3)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts, picture.time_base = number, Fraction(1, _FRAME_RATE)
        yield from map(bytes, context.encode(picture))
    if context is not None:
        yield from map(bytes, context.encode(None))


def _encoder(width: int, height: int) -> VideoCodecContext:
    import av

    context = av.CodecContext.create("mpeg4", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = Fraction(1, _FRAME_RATE)
    context.framerate = Fraction(_FRAME_RATE, 1)
    context.thread_count = 1
    context.gop_size = FRAMES_PER_KEY_FRAME
    context.max_b_frames = 0
    context.qmin = context.qmax = MPEG4_QUANTISER
    # A cut within a clip must not move the key frames.
    context.options = {"flags": "+bitexact", "sc_threshold": "1000000000"}
    return context


def _decoder() -> VideoCodecContext:
    import av

    context = av.CodecContext.create("mpeg4", "r")
    context.thread_count = 1
    return context


def _pixels(plane: VideoPlane) -> ByteArray:
    """Return the pixels of a plane (H, W) without the padding of its lines."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
