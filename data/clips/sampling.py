"""Which frames of a video make a clip: pure functions of the number of frames and of seeded draws.

A clip is `clip.images` stacks of `clip.stack` frames. Dense clips take a stack at every `stride`-th frame from
a start; segments take one stack of each of `clip.images` equal parts of the video, wherever in its part in training,
in its middle in evaluation (Wang et al., Temporal Segment Networks, ECCV 2016, section 3.1).
"""

from __future__ import annotations

import numpy as np

from ..arrays import Indices
from ..errors import InvalidSpecError
from ..seeding import Draws
from ..specs import ClipSpec, Padding


def training_indices(n_frames: int, clip: ClipSpec, draws: Draws) -> Indices:
    """Return the frames of a training clip: a start, or one in each segment, drawn among all that fit.

    A video shorter than the clip starts at its first frame and is padded.
    """
    if clip.sampling == "dense":
        return _dense(n_frames, draws.integer(max(0, n_frames - clip.span) + 1), clip)
    first, last = _segments(n_frames, clip)
    starts = [low + draws.integer(high - low + 1) for low, high in zip(first.tolist(), last.tolist(), strict=True)]
    return _stacked(n_frames, np.array(starts, np.intp), clip)


def evaluation_indices(n_frames: int, clip: ClipSpec, views: int = 1) -> list[Indices]:
    """Return the frames of `views` clips.

    Dense: the clip in the middle, or starts evenly spaced end to end. Segments: the middles of all segments, or
    places evenly spaced within them.
    """
    if views < 1:
        raise InvalidSpecError(f"views is {views}; it must be at least 1")
    if clip.sampling == "dense":
        return [_dense(n_frames, start, clip) for start in view_starts(n_frames, clip.span, views)]
    first, last = _segments(n_frames, clip)
    places = last - first + 1
    # Each segment is cut into as many equal parts as there are views; each view is the middle of one part.
    return [_stacked(n_frames, first + places * (2 * view + 1) // (2 * views), clip) for view in range(views)]


def view_starts(n_frames: int, span: int, views: int) -> list[int]:
    """Return where `views` clips of `span` frames start; the middle for one view."""
    last_start = max(0, n_frames - span)
    if views == 1:
        return [last_start // 2]
    return [round(last_start * view / (views - 1)) for view in range(views)]


def flow_indices(n_fields: int, frames: Indices, pairs: int) -> Indices:
    """Return the flow fields that stand for each frame, (T, pairs): from `pairs // 2` before it on.

    Field i is the motion from frame i to i + 1, so that ten fields reach from five frames before the frame to five
    behind it. At the ends of the video the first or last field is repeated.
    """
    if n_fields < 1:
        raise InvalidSpecError("a video without optical flow cannot be sampled as flow; it has one frame")
    offsets = np.arange(pairs, dtype=np.intp) - pairs // 2
    fields: Indices = np.clip(frames[:, None] + offsets, 0, n_fields - 1)
    return fields


def _dense(n_frames: int, start: int, clip: ClipSpec) -> Indices:
    starts = np.arange(start, start + clip.images * clip.stride, clip.stride, dtype=np.intp)
    return _stacked(n_frames, starts, clip)


def _segments(n_frames: int, clip: ClipSpec) -> tuple[Indices, Indices]:
    """Return the first and the last start of a stack in every segment."""
    bounds = n_frames * np.arange(clip.images + 1, dtype=np.intp) // clip.images
    first = np.minimum(bounds[:-1], max(0, n_frames - clip.stack_span))
    return first, np.maximum(first, bounds[1:] - clip.stack_span)


def _stacked(n_frames: int, starts: Indices, clip: ClipSpec) -> Indices:
    if clip.stack == 1:
        return _padded(starts, n_frames, clip.padding)
    frames = starts[:, None] + clip.gap * np.arange(clip.stack, dtype=np.intp)
    return _padded(frames.reshape(-1), n_frames, clip.padding)


def _padded(indices: Indices, n_frames: int, padding: Padding) -> Indices:
    """Return `indices` in `0..n_frames - 1`: those behind the last continue at the first (`loop`) or stay (`last`)."""
    if n_frames < 1:
        raise InvalidSpecError("a video without frames cannot be sampled")
    if padding == "loop":
        return indices % n_frames
    return np.minimum(indices, n_frames - 1)
