"""Loaders: prepared frames in, batches of clips on the device out.

The batches of a loader depend only on the seed, the epoch and the ids of the clips: an epoch can
be entered at any batch, and neither reading ahead nor the number of readers changes anything.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..arrays import Indices
from ..errors import InvalidSpecError
from ..index.records import ClipRecord
from ..stores.protocol import FrameStore
from .buffers import BatchMemory
from .pixels import flow_clips, rgb_clips
from .plan import EvaluationRows, Row, Stores, TrainingRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

J = TypeVar("J")
R = TypeVar("R")
A = TypeVar("A", "NDArray[np.uint8]", Tensor)
Clips = Tensor | tuple[Tensor, Tensor]
"""The input of a model: one tensor, or (rgb, flow)."""
_MAX_READERS = 4
"""The most threads that a loader for a GPU starts by default."""


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

    @property
    def targets(self) -> Tensor:
        """The targets of cross-entropy: the labels, or the class probabilities of mixed clips."""
        return self.labels if self.mixed is None else self.mixed

    def parts(self, most: int) -> Iterator[ClipBatch]:
        """Yield the batch in as few parts of `most` videos or fewer as there can be; their sizes differ by one at most.

        So no part is of a single video unless all are, on which batch norm would train badly.
        """
        videos = len(self.ids)
        count = math.ceil(videos / most)
        if count == 1:
            yield self
            return
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HostBatch:
    """The boxes of a batch's frames as they were read: bytes, one clip after another."""

    rows: tuple[Row, ...]
    frames: tuple[Tensor, ...]
    """For each input uint8 (bytes or more,): of every row, frames or fields (U, box height, box width, channels)."""


class ClipLoader:
    """Batches of clips of one part of a data set."""

    def __init__(
        self,
        stores: Stores,
        clips: Sequence[ClipRecord],
        rows: TrainingRows | EvaluationRows,
        *,
        batch_size: int,
        num_classes: int | None = None,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        drop_single: bool = False,
        most_batches: int | None = None,
        prefetch: int | None = None,
        readers: int | None = None,
    ) -> None:
        """Set up a loader; nothing is read yet.

        Args:
            batch_size: rows of a batch at most: videos times views.
            num_classes: length of mixed labels; by default as many as `clips` show.
            drop_last: leave out a last batch that is not full.
            drop_single: leave it out if it has one video only, on which batch norm cannot train.
            most_batches: end every epoch after this many batches.
            prefetch: batches read ahead by threads; 0 reads when asked. Default: 2 on a GPU, else 0.
            readers: threads that read ahead, one batch each; more than `prefetch` threads do not help.
                Default: as many as there are processors, up to 4.

        Raises:
            InvalidSpecError: the clips need a stream that was not prepared, or a number is out of range.
        """
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("most_batches", most_batches, 1),
            ("prefetch", prefetch, 0),
            ("readers", readers, 1),
        ):
            if value is not None and value < least:
                raise InvalidSpecError(f"{name} is {value}; it must be at least {least}")
        missing = [stream for stream in rows.clip.inputs if stream not in stores]
        if missing:
            raise InvalidSpecError(f"the clips need {missing[0]}, which the data set was opened without; set its flow")
        self._stores = {stream: stores[stream] for stream in rows.clip.inputs}
        self._clips = tuple(clips)
        self._rows = rows
        self._num_classes = num_classes or 1 + max((clip.label for clip in clips), default=0)
        self._videos_per_batch = max(1, batch_size // rows.views)
        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        readers = readers or min(_MAX_READERS, os.cpu_count() or 1)
        self._prefetch = (max(2, readers) if self._on_gpu else 0) if prefetch is None else prefetch
        self._readers = min(readers, self._prefetch)
        self._read_memory = [BatchMemory() for _ in self._stores]
        self._clip_memory = [BatchMemory() for _ in self._stores]
        whole = self._count_batches(drop_last=drop_last, drop_single=drop_single)
        self._length = min(whole, most_batches or whole)

    def _count_batches(self, *, drop_last: bool, drop_single: bool) -> int:
        full, rest = divmod(len(self._clips) * self._rows.repeats, self._videos_per_batch)
        dropped = drop_last or (drop_single and rest == 1)
        # A set smaller than one batch is trained on all the same.
        return full if rest == 0 or (dropped and full > 0) else full + 1

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self._length

    @property
    def batch_size(self) -> int:
        """Videos of a full batch."""
        return self._videos_per_batch

    @property
    def num_clips(self) -> int:
        """Videos of this part of the data set."""
        return len(self._clips)

    def __iter__(self) -> Iterator[ClipBatch]:
        return self.batches(0)

    def shown(self, id_: str) -> Indices:
        """Return the first and the last frame (or flow field) that each view of a video shows, (views, 2)."""
        frames = [row.readings[0].indices for row in self._rows.rows(id_, self._stores, 0)]
        return np.array([(view.min(), view.max()) for view in frames], np.intp)

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[ClipBatch]:
        """Yield the batches of an epoch from number `start_batch`, as if from the beginning.

        Raises:
            CacheError: the cache was damaged; no clip is ever replaced by another one.
        """
        jobs = self._jobs(epoch, start_batch)
        read = _ahead(lambda job: self._read(job, epoch), jobs, self._prefetch, self._readers)
        for number, (job, host) in enumerate(zip(jobs, read, strict=True), start=start_batch):
            yield self._batch([self._clips[i] for i, _ in job], host, epoch, number)

    def host_batches(self, epoch: int, start_batch: int = 0) -> Iterator[HostBatch]:
        """Yield what is read for the batches of an epoch, before the device sees it; for benchmarks."""
        jobs = self._jobs(epoch, start_batch)
        yield from _ahead(lambda job: self._read(job, epoch), jobs, self._prefetch, self._readers)

    def _jobs(self, epoch: int, start_batch: int) -> list[Sequence[tuple[int, int]]]:
        """Return the number of each video of each batch, and for which time the epoch sees it."""
        videos = self._rows.order(len(self._clips), epoch)
        order = [(video, place % self._rows.repeats) for place, video in enumerate(videos)]
        size = self._videos_per_batch
        return [order[n * size : (n + 1) * size] for n in range(start_batch, self._length)]

    def _read(self, job: Sequence[tuple[int, int]], epoch: int) -> HostBatch:
        rows = tuple(
            row for i, repeat in job for row in self._rows.rows(self._clips[i].id, self._stores, epoch, repeat=repeat)
        )
        frames = tuple(self._read_input(rows, number, store) for number, store in enumerate(self._stores.values()))
        return HostBatch(rows=rows, frames=frames)

    def _read_input(self, rows: Sequence[Row], number: int, store: FrameStore) -> Tensor:
        shapes = _shapes(rows, number, store.channels)
        n_bytes = sum(map(math.prod, shapes))
        if self._on_gpu:  # torch keeps pinned memory, and knows when the device has read it
            buffer = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
        else:
            buffer = self._read_memory[number].bytes(n_bytes)
        for row, target in zip(rows, _cut(buffer.numpy(), shapes), strict=True):
            store.read_into(row.id, row.readings[number].indices, row.change.box, target)
        return buffer

    def _batch(self, clips: Sequence[ClipRecord], host: HostBatch, epoch: int, number: int) -> ClipBatch:
        labels = self._shipped(torch.tensor([clip.label for clip in clips], dtype=torch.int64))
        tensors = tuple(self._tensors(host))
        mix = self._rows.mix(epoch, number)
        mixed = None if mix is None else mix.targets(labels, self._num_classes)
        if mix is not None:
            tensors, labels = tuple(mix.clips(tensor) for tensor in tensors), mix.labels(labels)
        return ClipBatch(
            clips=tensors[0] if len(tensors) == 1 else (tensors[0], tensors[1]),
            labels=labels,
            ids=tuple(clip.id for clip in clips),
            views=self._rows.views,
            mixed=mixed,
        )

    def _tensors(self, host: HostBatch) -> Iterator[Tensor]:
        """Yield the clips of each input, cut, changed and normalised on the device."""
        changes = [row.change for row in host.rows]
        for number, (stream, store) in enumerate(self._stores.items()):
            shapes = _shapes(host.rows, number, store.channels)
            boxes = list(_cut(host.frames[number].to(self._device, non_blocking=True), shapes))
            if stream == "rgb":
                yield rgb_clips(boxes, changes, self._rows.clip, empty=self._empty(number))
            else:
                stacks = np.stack([row.readings[number].stack for row in host.rows])
                yield flow_clips(
                    boxes, self._shipped(torch.from_numpy(stacks)), changes, self._rows.clip, empty=self._empty(number)
                )

    def _shipped(self, tensor: Tensor) -> Tensor:
        """Return a small tensor copied to the device, without waiting for the work that is queued there."""
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._on_gpu else tensor.to(self._device)

    def _empty(self, number: int) -> Callable[[tuple[int, ...]], Tensor] | None:
        return None if self._on_gpu else self._clip_memory[number].floats


def _shapes(rows: Sequence[Row], number: int, channels: int) -> list[tuple[int, int, int, int]]:
    """Return what every row takes from input `number`: (frames or fields, box height, box width, channels)."""
    return [(len(row.readings[number].indices), row.change.box.height, row.change.box.width, channels) for row in rows]


def _cut(buffer: A, shapes: Sequence[tuple[int, int, int, int]]) -> Iterator[A]:
    """Yield the part of each row of a flat buffer."""
    at = 0
    for shape in shapes:
        n_bytes = math.prod(shape)
        yield buffer[at : at + n_bytes].reshape(shape)
        at += n_bytes


def _ahead(work: Callable[[J], R], jobs: Sequence[J], depth: int, threads: int) -> Iterator[R]:
    """Yield `work(job)` for every job in order, up to `depth` of them done ahead by that many threads."""
    if depth < 1:
        yield from map(work, jobs)
        return
    pool = ThreadPoolExecutor(threads)
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
