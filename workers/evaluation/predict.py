"""Predict the class of videos or images that belong to no data set, in bounded memory however long they are.

The score of a video is that of an evaluation: the mean over evenly spaced clips. To know where these lie, a video is
decoded twice: its frames are counted, and then those that are needed kept. On the second way the windows of the time
line pass by as well, `most_clips` of them at a time.

Models that see optical flow are given that of these frames, computed as where the data set was prepared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data import ClipSpec, FlowError, VideoError
from data.clips.augment import Change
from data.clips.crops import view_boxes
from data.clips.pixels import flow_clips, rgb_clips
from data.clips.sampling import evaluation_indices, flow_indices
from data.flow.compute import encode_flow
from data.preparation.prepare import kept_frames
from data.reading.clip_frames import read_file
from data.reading.images import decode_image, resize_image
from data.reading.video import decode_frames, scaled_size, video_length

from ..errors import CheckpointError
from ..training.inputs import clip_spec
from ..training.precision import autocast
from .model import TrainedModel
from .sealed_test import Views
from .windows import Window, windows

if TYPE_CHECKING:
    from data.arrays import ByteArray, Indices
    from data.flow.method import FlowMethod

_SEGMENT_WINDOW_SECONDS: Final = 2.0
"""Length of a window of the time line for models that see segments of a whole video."""
_USUAL_FPS: Final = 25.0
"""Taken for videos that do not say their frame rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a video in which one class is the likeliest."""

    start: float
    end: float
    """In seconds."""
    label: str
    number: int
    """Of the class, counted from 0."""
    score: float
    """Its mean probability."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What a model says of one video."""

    path: Path
    frames: int
    fps: float
    scores: NDArray[np.float64]
    """(C,): mean probability over the views."""
    timeline: tuple[Segment, ...]
    """From the beginning to the end, without gaps; empty if nobody asked for it."""
    took_seconds: float

    @property
    def seconds(self) -> float:
        """Length of the video."""
        return self.frames / self.fps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Clip:
    """What a model sees of one clip, before it is cut."""

    frames: Sequence[ByteArray]
    """(H, W, 3); none for a model of flow."""
    fields: Sequence[ByteArray] = ()
    """(H, W, 2): the flow that the frames need; none for a model of RGB."""
    stack: Indices | None = None
    """Which of the fields stand for each frame, (T, pairs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A model that predicts files."""

    model: TrainedModel
    clip: ClipSpec
    short_side: int
    """To which frames are scaled down before a clip is cut out, as where the model was trained."""
    views: Views
    window_seconds: float | None = None
    """Length of a window of the time line; by default that of a clip."""
    most_frames: int | None = None
    """How many frames of a video the data set of the training kept, evenly spaced; None for all."""
    flow: FlowMethod | None = None
    """Computes the flow of a pair of frames, for models that see it."""
    of_images: bool = False
    """Whether files are images, each a clip of one frame."""

    @classmethod
    def of(
        cls,
        model: TrainedModel,
        *,
        short_side: int,
        views: Views,
        window_seconds: float | None = None,
        most_frames: int | None = None,
        flow: FlowMethod | None = None,
        of_images: bool = False,
    ) -> Predictor:
        """Return the predictor of a model.

        Args:
            flow: the method that computed the flow of the training, for models that see flow.
            of_images: whether files are images.

        Raises:
            CheckpointError: the model needs optical flow, and there is no method for it.
        """
        clip = clip_spec(model.config).for_evaluation()
        if "flow" in clip.inputs and flow is None:
            raise CheckpointError(
                f"{model.config.model} sees optical flow, which a video file does not have: say how to compute it with "
                "--flow dis, farneback or tvl1, as near as can be to the flow that the model was trained on"
            )
        return cls(
            model=model,
            clip=clip,
            short_side=short_side,
            views=views,
            window_seconds=window_seconds,
            most_frames=most_frames,
            flow=flow if "flow" in clip.inputs else None,
            of_images=of_images,
        )

    def predict(
        self, path: Path, *, timeline: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> Prediction:
        """Return what the model says of a video, or of an image.

        Args:
            progress: called with the frames done so far and in all.

        Raises:
            data.VideoError: it cannot be decoded to its end.
            data.FlowError: it has a single frame, and the model sees flow.
        """
        began = time.perf_counter()
        if self.of_images:
            return self._of_image(path, began)
        length = video_length(path)
        if length.frames < 1:
            raise VideoError(f"{path} has no frame that decodes")
        fps = length.fps or _USUAL_FPS
        views = self._views(path, length.frames)
        kept = _Kept(frozenset(number for view in views for number in view.needed))
        numbers = range(length.frames) if timeline else sorted(kept.needed)
        frames = decode_frames(path, short_side=self.short_side, keep=None if timeline else kept.needed)
        passing = kept.passing(zip(numbers, frames, strict=False), length.frames, progress)
        found = list(self._timeline(passing, fps)) if timeline else []
        for _ in passing:
            pass  # to the end, for the frames that are kept
        fields: dict[int, ByteArray] = {}
        clips = [self._clip(view, kept.frames, fields) for view in views]
        return Prediction(
            path=path,
            frames=length.frames,
            fps=fps,
            scores=np.concatenate(list(self._scored(clips))).mean(0, dtype=np.float64),
            timeline=tuple(_joined(found, self.model.class_names, length.frames / fps)),
            took_seconds=time.perf_counter() - began,
        )

    def _of_image(self, path: Path, began: float) -> Prediction:
        picture = decode_image(read_file(path), str(path))
        height, width = picture.shape[:2]
        frame = resize_image(picture, *scaled_size(width, height, self.short_side))
        return Prediction(
            path=path,
            frames=1,
            fps=_USUAL_FPS,
            scores=self._forward([_Clip(frames=[frame])]).mean(0, dtype=np.float64),
            timeline=(),
            took_seconds=time.perf_counter() - began,
        )

    def _views(self, path: Path, n_frames: int) -> list[_View]:
        """Return the evenly spaced clips of a video, as a data set that keeps `most_frames` has them."""
        if self.flow is not None and n_frames < 2:
            raise FlowError(f"{path} has one frame and so no optical flow, which the model sees")
        shown = kept_frames(n_frames, self.most_frames)
        return [self._view(shown, view) for view in evaluation_indices(len(shown), self.clip, self.views.clips)]

    def _view(self, shown: Indices, view: Indices) -> _View:
        """Return a clip of some of the frames that are `shown`, from each of which but the last there is flow."""
        starts = shown[:-1]
        frames = shown[view] if "rgb" in self.clip.inputs else shown[:0]
        if self.flow is None:
            return _View(frames=frames)
        fields, stack = np.unique(flow_indices(len(starts), view, self.clip.flow_pairs), return_inverse=True)
        return _View(frames=frames, starts=starts[fields], stack=stack.reshape(-1, self.clip.flow_pairs))

    def _clip(self, view: _View, frames: Mapping[int, ByteArray], fields: dict[int, ByteArray]) -> _Clip:
        """Return what a view shows; flow that is not in `fields` yet is computed, and joins them."""
        for start in view.starts.tolist() if self.flow is not None else ():
            if start not in fields:
                fields[start] = encode_flow(self.flow(frames[start], frames[start + 1]))  # type: ignore[misc]  # above
        return _Clip(
            frames=[frames[number] for number in view.frames.tolist()],
            fields=[fields[start] for start in view.starts.tolist()],
            stack=view.stack,
        )

    def _timeline(self, frames: Iterable[ByteArray], fps: float) -> Iterator[tuple[float, float, NDArray[np.float32]]]:
        """Yield start and end in seconds, and the probabilities (C,), of every window."""
        count = self._window_frames(fps)
        # Of each window only its clip is held until a batch is full: a window may be as long as the video.
        cut = (
            (window.start, window.start + len(window.frames), self._clip_of(window))
            for window in windows(frames, count, count)
        )
        while batch := list(islice(cut, max(1, self.model.most_clips // self.views.crops))):
            scores = np.concatenate(list(self._scored([clip for _, _, clip in batch])))
            for (start, end, _), of_window in zip(batch, scores, strict=True):
                yield start / fps, end / fps, of_window

    def _window_frames(self, fps: float) -> int:
        if self.window_seconds is not None:
            return max(1, round(self.window_seconds * fps))
        return self.clip.span if self.clip.sampling == "dense" else max(1, round(_SEGMENT_WINDOW_SECONDS * fps))

    def _clip_of(self, window: Window) -> _Clip:
        frames = window.frames if self.flow is None or len(window.frames) > 1 else window.frames * 2  # no motion
        (indices,) = evaluation_indices(len(frames), self.clip, 1)
        return self._clip(self._view(np.arange(len(frames)), indices), dict(enumerate(frames)), {})

    def _scored(self, clips: Sequence[_Clip]) -> Iterator[NDArray[np.float32]]:
        """Yield the probabilities (N, C) of clips, the mean over their crops, as many at a time as fit."""
        at_once = max(1, self.model.most_clips // self.views.crops)
        for start in range(0, len(clips), at_once):
            yield self._forward(clips[start : start + at_once])

    def _forward(self, clips: Sequence[_Clip]) -> NDArray[np.float32]:
        model, crops, device = self.model, self.views.crops, self.model.runtime.device
        height, width = (*clips[0].frames, *clips[0].fields)[0].shape[:2]
        boxes = view_boxes(height, width, crops, self.clip.crop_fraction)
        changes = [Change(box=box, flip=flip) for box, flip in boxes] * len(clips)

        def cut(pictures: Sequence[Sequence[ByteArray]]) -> list[Tensor]:
            return [
                torch.from_numpy(
                    np.stack([one[box.top : box.top + box.height, box.left : box.left + box.width] for one in of_clip])
                ).to(device)
                for of_clip in pictures
                for box, _ in boxes
            ]

        inputs: list[Tensor] = []
        if "rgb" in self.clip.inputs:
            inputs.append(rgb_clips(cut([clip.frames for clip in clips]), changes, self.clip))
        if self.flow is not None:
            stacks = np.stack([clip.stack for clip in clips for _ in boxes if clip.stack is not None])
            fields = cut([clip.fields for clip in clips])
            inputs.append(flow_clips(fields, torch.from_numpy(stacks).to(device), changes, self.clip))
        parts = zip(*(one.split(model.most_clips) for one in inputs), strict=True)
        with torch.inference_mode(), autocast(model.precision, device):
            logits = torch.cat([model.module(part if len(part) > 1 else part[0]) for part in parts])
        scores = logits.float().softmax(1).view(len(clips), crops, -1).mean(1)
        found: NDArray[np.float32] = scores.cpu().numpy()
        return found


_NONE: Final = np.empty(0, np.intp)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _View:
    """Which frames of a video one clip shows, and between which there is the flow that it sees."""

    frames: Indices
    starts: Indices = field(default_factory=lambda: _NONE)
    """Frames from each of which to the next there is a field."""
    stack: Indices | None = None
    """Which of these fields stand for each frame, (T, pairs)."""

    @property
    def needed(self) -> set[int]:
        """The frames that have to be decoded."""
        return {*self.frames.tolist(), *self.starts.tolist(), *(self.starts + 1).tolist()}


@dataclass(frozen=True, slots=True)
class _Kept:
    """The frames of the clips, picked out of those that pass by."""

    needed: frozenset[int]
    frames: dict[int, ByteArray] = field(default_factory=dict)

    def passing(
        self, numbered: Iterable[tuple[int, ByteArray]], total: int, progress: Callable[[int, int], None] | None
    ) -> Iterator[ByteArray]:
        """Yield all frames, and keep those that are needed."""
        for number, frame in numbered:
            if number in self.needed:
                self.frames[number] = frame
            if progress is not None and number % 32 == 0:
                progress(number, total)
            yield frame


def _joined(
    found: Sequence[tuple[float, float, NDArray[np.float32]]], names: Sequence[str], seconds: float
) -> Iterator[Segment]:
    """Yield the stretches of equal classes; each window reaches to the next, and the last one to the end."""
    stretch: list[NDArray[np.float32]] = []
    start = 0.0
    for place, (begin, _, scores) in enumerate(found):
        if stretch and scores.argmax() != stretch[-1].argmax():
            yield _segment(stretch, start, begin, names)
            stretch, start = [], begin
        stretch.append(scores)
        if place == len(found) - 1:
            yield _segment(stretch, start, seconds, names)


def _segment(stretch: Sequence[NDArray[np.float32]], start: float, end: float, names: Sequence[str]) -> Segment:
    label = int(stretch[-1].argmax())
    score = float(np.mean([scores[label] for scores in stretch]))
    return Segment(start=start, end=end, label=names[label], number=label, score=score)
