"""How the videos of an epoch become rows of batches: which frames of which store, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Indices
from ..errors import CacheError, FlowError, InvalidSpecError
from ..seeding import Draws, generator
from ..specs import AugmentSpec, ClipSpec, Stream
from ..stores.protocol import FrameStore
from .augment import Change, training_change
from .crops import CROPS, view_boxes
from .mixing import Mix, draw_mix
from .sampling import evaluation_indices, flow_indices, training_indices

Stores = Mapping[Stream, FrameStore]
"""Where the frames of each stream are; a clip needs those that its spec names as inputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The frames that one row takes from one store."""

    indices: Indices
    """(U,): frames or fields."""
    stack: Indices
    """Which of the U fields stand for each frame, (T, pairs); (0, 0) for RGB, where they are the frames."""


_NO_STACK = np.empty((0, 0), np.intp)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One clip to be read and what is done to it."""

    id: str
    readings: tuple[Reading, ...]
    """One for each input of the clip."""
    change: Change


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """Every video in random order, `augment.repeats` random clips of each."""

    clip: ClipSpec
    augment: AugmentSpec
    seed: int

    @property
    def views(self) -> int:
        """Rows of a video each time that it is seen."""
        return 1

    @property
    def repeats(self) -> int:
        """How often a video is seen in an epoch."""
        return self.augment.repeats

    def order(self, n_videos: int, epoch: int) -> Sequence[int]:
        """Return the numbers of the videos in the order of an epoch; each is repeated at once."""
        return [int(i) for i in generator("order", self.seed, epoch).permutation(n_videos).repeat(self.repeats)]

    def rows(self, id_: str, stores: Stores, epoch: int, *, repeat: int = 0) -> list[Row]:
        """Return the rows of one video, seen for the time `repeat` (from 0) in an epoch."""
        shape = clip_shape(id_, stores, self.clip)
        draws = Draws("clip", self.seed, epoch, id_, *([repeat] if repeat else []))
        indices = training_indices(shape[0], self.clip, draws)
        change = training_change(*shape[1:], size=self.clip.size, augment=self.augment, draws=draws)
        return [Row(id=id_, readings=_readings(id_, stores, self.clip, indices), change=change)]

    def mix(self, epoch: int, batch: int) -> Mix | None:
        """Return how a batch is mixed, if it is."""
        return draw_mix(self.augment, size=self.clip.size, parts=(self.seed, epoch, batch))


@dataclass(frozen=True, kw_only=True)
class EvaluationRows:
    """Every video in the order of the index: evenly spaced clips, several crops of each."""

    clip: ClipSpec
    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise InvalidSpecError(f"views is {self.clips}; it must be at least 1")
        if self.crops not in CROPS:
            raise InvalidSpecError(f"crops is {self.crops}; it must be one of {CROPS}")

    @property
    def views(self) -> int:
        """Rows of a video: the crops of its first clip, of its second, and so on."""
        return self.clips * self.crops

    @property
    def repeats(self) -> int:
        """How often a video is seen in an epoch."""
        return 1

    def order(self, n_videos: int, epoch: int) -> Sequence[int]:
        """Return the numbers of the videos as they are, whatever the epoch."""
        return range(n_videos)

    def rows(self, id_: str, stores: Stores, epoch: int, *, repeat: int = 0) -> list[Row]:
        """Return the rows of one video."""
        n_frames, height, width = clip_shape(id_, stores, self.clip)
        boxes = view_boxes(height, width, self.crops, self.clip.crop_fraction)
        readings = [
            _readings(id_, stores, self.clip, indices)
            for indices in evaluation_indices(n_frames, self.clip, self.clips)
        ]
        return [
            Row(id=id_, readings=reading, change=Change(box=box, flip=flip))
            for reading in readings
            for box, flip in boxes
        ]

    def mix(self, epoch: int, batch: int) -> None:
        """Mix nothing."""


@dataclass(frozen=True, kw_only=True)
class ShuffledEvaluationRows(EvaluationRows):
    """The same clips of every video, the videos in random order: neighbours in the index are often of one class."""

    seed: int

    def order(self, n_videos: int, epoch: int) -> Sequence[int]:
        """Return the numbers of the videos in an order of this epoch's own, which differs from that of training."""
        return [int(i) for i in generator("shuffled evaluation", self.seed, epoch).permutation(n_videos)]


def clip_shape(id_: str, stores: Stores, clip: ClipSpec) -> tuple[int, int, int]:
    """Return (frames, height, width) of a video, as all its streams have it.

    Raises:
        CacheError: its flow is not of the size of its frames, which then cannot share a crop.
        FlowError: it is too short for flow.
    """
    first, *others = (stores[stream].shape(id_) for stream in clip.inputs)
    if any(other[1:] != first[1:] for other in others):
        raise CacheError(
            f"the flow of {id_} is {others[0][2]} x {others[0][1]}, its frames {first[2]} x {first[1]}; "
            "prepare both again"
        )
    if "flow" in clip.inputs and stores["flow"].shape(id_)[0] < 1:
        raise FlowError(f"{id_} has one frame and so no optical flow; take it out of the lists, or train on RGB alone")
    if clip.inputs[0] == "flow":
        return first[0] + 1, first[1], first[2]
    return first


def _readings(id_: str, stores: Stores, clip: ClipSpec, indices: Indices) -> tuple[Reading, ...]:
    return tuple(
        Reading(indices=indices, stack=_NO_STACK)
        if stream == "rgb"
        else _flow_reading(stores["flow"].shape(id_)[0], clip, indices)
        for stream in clip.inputs
    )


def _flow_reading(n_fields: int, clip: ClipSpec, indices: Indices) -> Reading:
    # Stacks of neighbouring frames overlap: what they share is read and resized once.
    fields, stack = np.unique(flow_indices(n_fields, indices, clip.flow_pairs), return_inverse=True)
    return Reading(indices=fields, stack=stack.reshape(-1, clip.flow_pairs))
