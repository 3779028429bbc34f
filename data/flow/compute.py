"""Optical flow: how far each pixel moves from one frame to the next, in pixels to the right (x) and downwards (y).

Kept as uint8 (H, W, 2): `round((pixels / bound + 1) * 127.5)`, clipped, so that grey 127.5 is no motion and the ends
are `bound` pixels: the way of dense_flow and of the two-stream networks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import cv2
import numpy as np

from ..errors import FlowError, VideoError
from ..index.records import ClipRecord
from ..reading.clip_frames import clip_frames, flow_paths, read_file
from ..reading.images import decode_image
from ..reading.video import scaled_size
from .method import widened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .method import FlowMethod

FLOW_BOUND = 20.0
"""Pixels per frame at the ends of the range, at the size of the prepared frames."""

ComputedFlow = Literal["dis", "farneback", "tvl1", "raft"]

_LEAST_SIDE = 16
"""Smaller frames are widened for the methods: DIS gives up on them, or worse."""


def encode_flow(field: NDArray[np.float32], bound: float = FLOW_BOUND) -> NDArray[np.uint8]:
    """Return a field (..., 2) in pixels as bytes; what moves faster than `bound` is clipped."""
    encoded: NDArray[np.uint8] = np.rint((field / bound + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return encoded


def decode_flow(encoded: NDArray[np.uint8], bound: float = FLOW_BOUND) -> NDArray[np.float32]:
    """Return the pixels of an encoded field (..., 2); within the bound they are exact to `bound / 255`."""
    return ((encoded.astype(np.float32) / 127.5) - 1) * np.float32(bound)


def resize_flow(field: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Return a field (H, W, 2) in another size, its vectors scaled with the picture."""
    old_height, old_width, _ = field.shape
    shrinks = width <= old_width and height <= old_height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(field, (width, height), interpolation=method)
    return cast("NDArray[np.float32]", resized * np.array([width / old_width, height / old_height], np.float32))


def flow_method(name: ComputedFlow, *, weights: Path | None = None) -> FlowMethod:
    """Return a way to compute flow, for one thread at a time.

    `dis`: Dense Inverse Search, preset medium (Kroeger et al., ECCV 2016). `farneback`: polynomial expansion
    (Farnebäck, SCIA 2003), window 15, 3 levels. `tvl1`: duality-based TV-L1 (Zach et al., DAGM 2007), a hundred times
    slower. `raft`: see `data.flow.raft`.

    Raises:
        FlowError: RAFT has no weights or no GPU.
    """
    if name == "raft":
        from .raft import raft_method  # brings torch

        if weights is None:
            raise FlowError("raft needs the path of torchvision's weights of raft_large or raft_small")
        return raft_method(weights)
    return _on_grey(_makers()[name]())


def _makers() -> Mapping[str, Callable[[], Any]]:
    """Return what makes OpenCV's methods; their names lack in its type information."""
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
) -> Iterator[NDArray[np.uint8]]:
    """Yield the encoded fields that lead from each of the frames `starts`, which rise, to the frame after it.

    Raises:
        VideoError: a frame cannot be decoded.
    """
    numbers = sorted({*starts, *(start + 1 for start in starts)})
    frames = clip_frames(clip, root, short_side=short_side, keep=frozenset(numbers))
    wanted = frozenset(starts)
    before: tuple[int, NDArray[np.uint8]] | None = None
    for number, frame in zip(numbers, frames, strict=False):
        if before is not None and before[0] == number - 1 and before[0] in wanted:
            yield encode_flow(method(before[1], frame))
        before = number, frame


def listed_flow(
    clip: ClipRecord, root: Path, *, short_side: int | None, starts: Collection[int]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the fields that came with a clip for each of the frames `starts`, at the size of its prepared frames.

    Where the last pair of images is missing, the one before it is repeated: some tools leave it out.

    Raises:
        VideoError: an image is missing or cannot be decoded.
    """
    if clip.flow is None:
        raise VideoError(f"{clip.id} came without optical flow; choose a flow that is computed, such as dis")
    pairs = flow_paths(clip, root)
    width, height = scaled_size(clip.measured.width, clip.measured.height, short_side)
    for start in starts:
        if start > len(pairs) or not pairs:
            raise VideoError(f"the flow of {clip.id} has {len(pairs)} pairs of images; {start + 1} are needed")
        x, y = pairs[min(start, len(pairs) - 1)]
        planes = [decode_image(read_file(path), str(path), colour=False) for path in (x, y)]
        if planes[0].shape != planes[1].shape:
            raise VideoError(f"{x} and {y} differ in size")
        field = np.stack(planes, axis=-1)
        if field.shape[:2] == (height, width) and clip.flow.bound == FLOW_BOUND:
            yield field
        else:
            yield encode_flow(resize_flow(decode_flow(field, clip.flow.bound), width, height))


def _on_grey(method: Any) -> FlowMethod:
    def fields(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width, _ = first.shape
        wide = [widened(frame, _LEAST_SIDE) for frame in (first, second)]
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in wide]
        return np.asarray(method.calc(grey[0], grey[1], None), np.float32)[:height, :width]

    return fields
