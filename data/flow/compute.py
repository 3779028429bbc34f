"""Optical flow: how far each pixel moves from one frame to the next, in pixels to the right (x) and downwards (y).

Stored as uint8 (H, W, 2): `round((pixels / bound + 1) * 127.5)`, clipped, so that grey 127.5 is no motion and 0 and 255
are `bound` pixels, as in dense_flow and the two-stream networks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import cv2
import numpy as np

from ..errors import FlowError, VideoError
from ..index.records import ClipRecord
from ..reading.clip_frames import clip_frames, decode_flow_pair, flow_paths, read_file
from ..reading.video import scaled_size
from .method import widened

if TYPE_CHECKING:
    from ..arrays import ByteArray, FloatArray
    from .method import FlowMethod

FLOW_BOUND = 20.0
"""Pixels per frame at the ends of the range, at the size of the prepared frames."""

ComputedFlow = Literal["dis", "farneback", "tvl1", "raft"]

_MIN_SIDE = 16
"""Smaller frames are padded to this side, because OpenCV's DIS fails or crashes on them."""


def encode_flow(field: FloatArray, bound: float = FLOW_BOUND) -> ByteArray:
    """Return a field (..., 2) in pixels as bytes; motion beyond `bound` is clipped."""
    encoded: ByteArray = np.rint((field / bound + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return encoded


def decode_flow(encoded: ByteArray, bound: float = FLOW_BOUND) -> FloatArray:
    """Return an encoded field (..., 2) in pixels; within the bound the error is at most `bound / 255`."""
    return ((encoded.astype(np.float32) / 127.5) - 1) * np.float32(bound)


def resize_flow(field: FloatArray, width: int, height: int) -> FloatArray:
    """Return a field (H, W, 2) resized to (height, width, 2), with its vectors scaled accordingly."""
    old_height, old_width, _ = field.shape
    shrinks = width <= old_width and height <= old_height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(field, (width, height), interpolation=method)
    return cast("FloatArray", resized * np.array([width / old_width, height / old_height], np.float32))


def flow_method(name: ComputedFlow, *, weights: Path | None = None) -> FlowMethod:
    """Return a method that computes flow; only one thread at a time may use it.

    `dis`: Dense Inverse Search, preset medium (Kroeger et al., ECCV 2016). `farneback`: polynomial expansion
    (Farnebäck, SCIA 2003), window 15, 3 levels. `tvl1`: duality-based TV-L1 (Zach et al., DAGM 2007), a hundred times
    slower. `raft`: see `data.flow.raft`.

    Raises:
        FlowError: RAFT has no weights or no GPU.
    """
    if name == "raft":
        from .raft import raft_method  # imports torch

        if weights is None:
            raise FlowError("raft needs the path of torchvision's weights of raft_large or raft_small")
        return raft_method(weights)
    return _on_grey(_makers()[name]())


def _makers() -> Mapping[str, Callable[[], Any]]:
    """Return the functions that make OpenCV's methods, which are missing in its type information."""
    video, extra = cast("Any", cv2), cast("Any", cv2.optflow)
    return {
        "dis": lambda: video.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
        "farneback": lambda: video.FarnebackOpticalFlow_create(
            numLevels=3, pyrScale=0.5, winSize=15, numIters=3, polyN=5, polySigma=1.2
        ),
        "tvl1": extra.DualTVL1OpticalFlow_create,
    }


def computed_flow(
    clip: ClipRecord, root: Path, method: FlowMethod, *, short_side: int | None, starts: Sequence[int]
) -> Iterator[ByteArray]:
    """Yield the encoded flow from each of the frames `starts` (ascending) to the frame after it.

    Raises:
        VideoError: a frame cannot be decoded.
    """
    numbers = sorted({*starts, *(start + 1 for start in starts)})
    frames = clip_frames(clip, root, short_side=short_side, keep=frozenset(numbers))
    wanted = frozenset(starts)
    before: tuple[int, ByteArray] | None = None
    for number, frame in zip(numbers, frames, strict=False):
        if before is not None and before[0] == number - 1 and before[0] in wanted:
            yield encode_flow(method(before[1], frame))
        before = number, frame


def listed_flow(
    clip: ClipRecord, root: Path, *, short_side: int | None, starts: Collection[int]
) -> Iterator[ByteArray]:
    """Yield the listed flow of a clip for each of the frames `starts`, at the size of its prepared frames.

    If the last pair of images is missing (some tools leave it out), the one before it is repeated.

    Raises:
        VideoError: an image is missing or cannot be decoded, or two of a pair differ in size.
    """
    if clip.flow is None:
        raise VideoError(f"{clip.id} came without optical flow; choose a flow that is computed, such as dis")
    pairs = flow_paths(clip, root)
    width, height = scaled_size(clip.measured.width, clip.measured.height, short_side)
    for start in starts:
        if start > len(pairs) or not pairs:
            raise VideoError(f"the flow of {clip.id} has {len(pairs)} pairs of images: it needs {start + 1}")
        pair = pairs[min(start, len(pairs) - 1)]
        field = np.stack(decode_flow_pair(pair, [read_file(path) for path in pair]), axis=-1)
        if field.shape[:2] == (height, width) and clip.flow.bound == FLOW_BOUND:
            yield field
        else:
            yield encode_flow(resize_flow(decode_flow(field, clip.flow.bound), width, height))


def _on_grey(method: Any) -> FlowMethod:
    def fields(first: ByteArray, second: ByteArray) -> FloatArray:
        height, width, _ = first.shape
        wide = [widened(frame, _MIN_SIDE) for frame in (first, second)]
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in wide]
        return np.asarray(method.calc(grey[0], grey[1], None), np.float32)[:height, :width]

    return fields
