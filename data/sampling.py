"""Which frames of a video make a clip: pure functions of the number of frames and a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import InvalidSpecError
from .specs import ClipSpec, Padding

if TYPE_CHECKING:
    from numpy.typing import NDArray


def dense_indices(n_frames: int, start: int, *, frames: int, stride: int, padding: Padding) -> NDArray[np.intp]:
    """Return `frames` indices from `start` in steps of `stride`, all in `0..n_frames - 1`.

    Indices behind the last frame go on at the first (`loop`) or stay at the last (`last`).
    """
    if n_frames < 1:
        raise InvalidSpecError("a video without frames cannot be sampled")
    indices = start + stride * np.arange(frames, dtype=np.intp)
    if padding == "loop":
        return indices % n_frames
    return np.minimum(indices, n_frames - 1)


def training_indices(n_frames: int, clip: ClipSpec, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the frames of a training clip: a start drawn from `rng` among all that fit.

    A video shorter than the clip starts at its first frame and is padded.
    """
    last_start = max(0, n_frames - clip.span)
    start = int(rng.integers(last_start + 1))
    return _clip_at(n_frames, start, clip)


def evaluation_indices(n_frames: int, clip: ClipSpec, views: int = 1) -> list[NDArray[np.intp]]:
    """Return the frames of `views` clips: the centre one, or starts evenly spaced end to end."""
    return [_clip_at(n_frames, start, clip) for start in view_starts(n_frames, clip.span, views)]


def view_starts(n_frames: int, span: int, views: int) -> list[int]:
    """Return where `views` clips of `span` frames start; the middle for one view."""
    if views < 1:
        raise InvalidSpecError(f"views is {views}; it must be at least 1")
    last_start = max(0, n_frames - span)
    if views == 1:
        return [last_start // 2]
    return [round(last_start * view / (views - 1)) for view in range(views)]


def _clip_at(n_frames: int, start: int, clip: ClipSpec) -> NDArray[np.intp]:
    return dense_indices(n_frames, start, frames=clip.frames, stride=clip.stride, padding=clip.padding)
