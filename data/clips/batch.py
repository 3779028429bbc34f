"""A batch of clips on the device that trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

Clips = Tensor | tuple[Tensor, Tensor]
"""The input of a model: one tensor, or (rgb, flow)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClipBatch:
    """N videos as `views` clips each, on the loader's device."""

    clips: Clips
    """float32 (N * views, C, T, size, size), normalised; the views of a video are neighbours. A pair (rgb, flow)
    for clips of both."""
    labels: Tensor
    """int64 (N,). Of mixed clips, the label of the larger part."""
    ids: tuple[str, ...]
    """N ids of the index."""
    views: int = 1
    mixed: Tensor | None = None
    """float32 (N, classes): each class's share of a clip, where clips are mixed."""
    whole: int | None = None
    """Videos of the whole batch, where this is one share of it."""

    @property
    def targets(self) -> Tensor:
        """The targets of cross-entropy: the labels, or the class probabilities of mixed clips."""
        return self.labels if self.mixed is None else self.mixed

    def tensors(self) -> Iterator[Tensor]:
        """Yield what the batch has on the device."""
        yield from (self.clips,) if isinstance(self.clips, Tensor) else self.clips
        yield self.labels
        if self.mixed is not None:
            yield self.mixed

    def parts(self, most: int) -> Iterator[ClipBatch]:
        """Yield the batch in as few parts of `most` videos or fewer as there can be; their sizes differ by one at most.

        So no part is of a single video unless all are, on which batch norm would train badly.
        """
        yield from self.cut(math.ceil(len(self.ids) / most))

    def cut(self, count: int) -> Iterator[ClipBatch]:
        """Yield the batch in `count` parts, whose sizes differ by one at most."""
        if count == 1:
            yield self
            return
        videos = len(self.ids)
        ends = [videos * number // count for number in range(count + 1)]
        for start, end in pairwise(ends):
            of_clips = slice(start * self.views, end * self.views)
            yield ClipBatch(
                clips=self.clips[of_clips]
                if isinstance(self.clips, Tensor)
                else (self.clips[0][of_clips], self.clips[1][of_clips]),
                labels=self.labels[start:end],
                ids=self.ids[start:end],
                views=self.views,
                mixed=None if self.mixed is None else self.mixed[start:end],
            )
