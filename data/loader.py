"""Loaders: prepared frames in, batches of clips on the device out.

What a loader yields depends on the seed, the epoch and the ids of the clips, and on nothing else: an epoch can
be entered at any batch, and reading ahead changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from .augment import Crop, apply_crops, centre_crop, training_crop
from .errors import InvalidSpecError
from .index import ClipRecord
from .sampling import evaluation_indices, training_indices
from .seeding import generator
from .specs import AugmentSpec, ClipSpec
from .store import Box, FrameStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClipBatch:
    """N videos as `views` clips each, on the loader's device."""

    clips: torch.Tensor
    """float32 (N * views, 3, T, size, size), normalised; the views of a video are neighbours."""
    labels: torch.Tensor
    """int64 (N,)."""
    ids: tuple[str, ...]
    """N ids of the index."""
    views: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One clip to be read: which video, which frames, which box."""

    id: str
    indices: NDArray[np.intp]
    crop: Crop


class _Rows:
    """How the videos of an epoch become rows of batches. Subclasses say which and in what order."""

    views = 1

    def order(self, n_videos: int, epoch: int) -> Sequence[int]:
        raise NotImplementedError

    def rows(self, id_: str, shape: tuple[int, int, int], epoch: int) -> list[_Row]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TrainingRows(_Rows):
    """Every video once in random order, one random clip of each."""

    clip: ClipSpec
    augment: AugmentSpec
    seed: int

    def order(self, n_videos: int, epoch: int) -> Sequence[int]:
        return [int(i) for i in generator("order", self.seed, epoch).permutation(n_videos)]

    def rows(self, id_: str, shape: tuple[int, int, int], epoch: int) -> list[_Row]:
        n_frames, height, width = shape
        rng = generator("clip", self.seed, epoch, id_)
        indices = training_indices(n_frames, self.clip, rng)
        return [_Row(id=id_, indices=indices, crop=training_crop(height, width, self.augment, rng))]


@dataclass(frozen=True, kw_only=True)
class EvaluationRows(_Rows):
    """Every video in the order of the index, as centre crops of evenly spaced clips."""

    clip: ClipSpec
    views: int = 1

    def order(self, n_videos: int, epoch: int) -> Sequence[int]:
        return range(n_videos)

    def rows(self, id_: str, shape: tuple[int, int, int], epoch: int) -> list[_Row]:
        n_frames, height, width = shape
        crop = centre_crop(height, width, self.clip)
        return [
            _Row(id=id_, indices=indices, crop=crop) for indices in evaluation_indices(n_frames, self.clip, self.views)
        ]


class ClipLoader:
    """Batches of clips of one part of a data set."""

    def __init__(
        self,
        cache: FrameStore,
        clips: Sequence[ClipRecord],
        rows: TrainingRows | EvaluationRows,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        drop_single: bool = False,
        prefetch: int | None = None,
    ) -> None:
        """Set up a loader; nothing is read yet.

        Args:
            batch_size: rows of a batch at most: videos times views.
            drop_last: leave out a last batch that is not full.
            drop_single: leave it out if it has one video only, on which batch norm cannot train.
            prefetch: batches read ahead by a thread; 0 reads when asked. Default: 2 on a GPU, else 0.
        """
        if batch_size < 1:
            raise InvalidSpecError(f"batch_size is {batch_size}; it must be at least 1")
        self._cache = cache
        self._clips = tuple(clips)
        self._rows = rows
        self._videos_per_batch = max(1, batch_size // rows.views)
        self._device = torch.device(device)
        on_gpu = self._device.type == "cuda"
        self._prefetch = (2 if on_gpu else 0) if prefetch is None else prefetch
        self._pin = on_gpu
        self._length = self._count_batches(drop_last=drop_last, drop_single=drop_single)

    def _count_batches(self, *, drop_last: bool, drop_single: bool) -> int:
        full, rest = divmod(len(self._clips), self._videos_per_batch)
        dropped = drop_last or (drop_single and rest == 1)
        # A set smaller than one batch is trained on all the same.
        return full if rest == 0 or (dropped and full > 0) else full + 1

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self._length

    @property
    def num_clips(self) -> int:
        """Videos of this part of the data set."""
        return len(self._clips)

    def __iter__(self) -> Iterator[ClipBatch]:
        return self.batches(0)

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[ClipBatch]:
        """Yield the batches of an epoch from number `start_batch`, as if from the beginning.

        Raises:
            CacheError: the cache was damaged; no clip is ever replaced by another one.
        """
        order = self._rows.order(len(self._clips), epoch)
        size = self._videos_per_batch
        jobs = [order[n * size : (n + 1) * size] for n in range(start_batch, self._length)]
        for job, (frames, crops) in zip(
            jobs, _ahead(lambda job: self._read(job, epoch), jobs, self._prefetch), strict=True
        ):
            yield self._batch([self._clips[i] for i in job], frames, crops)

    def _read(self, job: Sequence[int], epoch: int) -> tuple[torch.Tensor, list[Crop]]:
        """Return the cropped frames of a batch on the host, uint8 (N, T, H, W, 3), and its crops."""
        rows: list[_Row] = []
        for i in job:
            id_ = self._clips[i].id
            rows += self._rows.rows(id_, self._cache.shape(id_), epoch)
        height = max(row.crop.height for row in rows)
        width = max(row.crop.width for row in rows)
        shape_all = (len(rows), self._rows.clip.frames, height, width, 3)
        canvas = torch.empty(shape_all, dtype=torch.uint8, pin_memory=self._pin)
        for row, target in zip(rows, canvas.numpy(), strict=True):
            crop = row.crop
            box = Box(top=crop.top, left=crop.left, height=crop.height, width=crop.width)
            self._cache.read_into(row.id, row.indices, box, target[:, : box.height, : box.width])
        return canvas, [row.crop for row in rows]

    def _batch(self, clips: Sequence[ClipRecord], frames: torch.Tensor, crops: list[Crop]) -> ClipBatch:
        frames = frames.to(self._device, non_blocking=True)
        labels = torch.tensor([clip.label for clip in clips], dtype=torch.int64)
        return ClipBatch(
            clips=apply_crops(frames, crops, self._rows.clip),
            labels=labels.to(self._device),
            ids=tuple(clip.id for clip in clips),
            views=self._rows.views,
        )


def _ahead(work: Callable[[J], R], jobs: Sequence[J], depth: int) -> Iterator[R]:
    """Yield `work(job)` for every job in order, up to `depth` of them done ahead in a thread."""
    if depth < 1:
        yield from map(work, jobs)
        return
    pool = ThreadPoolExecutor(1)
    waiting: deque[Future[R]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
