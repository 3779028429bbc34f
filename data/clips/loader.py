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
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..arrays import Indices
from ..errors import InvalidSpecError
from ..index.records import ClipRecord
from ..stores.protocol import FrameStore
from .batch import ClipBatch
from .buffers import BatchMemory
from .pixels import flow_clips, rgb_clips
from .plan import EvaluationRows, Row, Stores, TrainingRows
from .share import Share
from .stream import streamed

if TYPE_CHECKING:
    from numpy.typing import NDArray

J = TypeVar("J")
R = TypeVar("R")
A = TypeVar("A", "NDArray[np.uint8]", Tensor)
_MAX_READERS = 4
"""The most threads that a loader for a GPU starts by default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """What is read for one batch."""

    number: int
    """Of the batch in its epoch."""
    videos: Sequence[tuple[int, int]]
    """The number of each video, and for which time the epoch sees it."""
    whole: int
    """Videos of the whole batch."""
    own: int
    """How many of `videos`, the first ones, are of the batch; the others are read to be mixed with them."""
    partners: Sequence[int] | None = None
    """Of each of the own videos, the one of `videos` that it is mixed with; None for a whole batch."""


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
        share: Share | None = None,
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
            share: take this share of each batch alone. A last batch with fewer videos than shares is left out.
            prefetch: batches read ahead by threads; 0 reads when asked. Default: one for each of the
                readers, and 2 at least, on a GPU; else 0.
            readers: threads that read ahead, one batch each; more than `prefetch` threads do not help.
                Default: as many as there are processors, up to 4.

        Raises:
            InvalidSpecError: the clips need a stream that was not prepared, a number is out of range, or a batch has
                fewer videos than shares.
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
        self._share = share
        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        readers = readers or min(_MAX_READERS, os.cpu_count() or 1)
        self._prefetch = (max(2, readers) if self._on_gpu else 0) if prefetch is None else prefetch
        self._readers = min(readers, self._prefetch)
        self._begun: tuple[int, _Ahead[HostBatch]] | None = None
        self._read_memory = [BatchMemory() for _ in self._stores]
        self._clip_memory = [BatchMemory() for _ in self._stores]
        whole = self._count_batches(drop_last=drop_last, drop_single=drop_single)
        self._length = min(whole, most_batches or whole)

    def _count_batches(self, *, drop_last: bool, drop_single: bool) -> int:
        videos = len(self._clips) * self._rows.repeats
        full, rest = divmod(videos, self._videos_per_batch)
        dropped = drop_last or (drop_single and rest == 1)
        if self._share is not None:
            dropped = dropped or rest < self._share.of
            if (largest := min(videos, self._videos_per_batch)) < self._share.of:
                raise InvalidSpecError(
                    f"a batch of {largest} videos cannot be shared by {self._share.of} processes; train on fewer GPUs, "
                    "or on more videos"
                )
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

    def batches(self, epoch: int, start_batch: int = 0, *, step: int = 1) -> Iterator[ClipBatch]:
        """Yield every `step`-th batch of an epoch from number `start_batch`, as if from the beginning.

        Raises:
            CacheError: the cache was damaged; no clip is ever replaced by another one.
        """
        jobs = self._jobs(epoch, start_batch, step)
        with closing(self._taken(epoch, start_batch, step) or self._reading(jobs, epoch)) as read:
            made = (self._batch(job, host, epoch) for job, host in zip(jobs, read, strict=True))
            yield from streamed(made, self._device) if self._on_gpu else made

    def host_batches(self, epoch: int, start_batch: int = 0) -> Iterator[HostBatch]:
        """Yield what is read for the batches of an epoch, before the device sees it; for benchmarks."""
        with closing(self._reading(self._jobs(epoch, start_batch), epoch)) as read:
            yield from read

    def read_ahead(self, epoch: int) -> None:
        """Begin to read the first batches of an epoch in the background, for :meth:`batches` to begin with.

        Does nothing where batches are read when they are asked for.
        """
        self._taken(epoch, 0, 1)
        if self._prefetch:
            self._begun = epoch, self._reading(self._jobs(epoch, 0), epoch)

    def _taken(self, epoch: int, start_batch: int, step: int) -> _Ahead[HostBatch] | None:
        """Return what was begun to be read if it is this; else end that."""
        begun, self._begun = self._begun, None
        if begun is None or (begun[0], start_batch, step) == (epoch, 0, 1):
            return None if begun is None else begun[1]
        begun[1].close()
        return None

    def _reading(self, jobs: list[_Job], epoch: int) -> _Ahead[HostBatch]:
        return _Ahead(lambda job: self._read(job, epoch), jobs, depth=self._prefetch, threads=self._readers)

    def _jobs(self, epoch: int, start_batch: int, step: int = 1) -> list[_Job]:
        """Return what is read for each batch."""
        videos = self._rows.order(len(self._clips), epoch)
        order = [(video, place % self._rows.repeats) for place, video in enumerate(videos)]
        size = self._videos_per_batch
        return [self._job(n, order[n * size : (n + 1) * size], epoch) for n in range(start_batch, self._length, step)]

    def _job(self, number: int, videos: Sequence[tuple[int, int]], epoch: int) -> _Job:
        if self._share is None:
            return _Job(number=number, videos=videos, whole=len(videos), own=len(videos))
        own = self._share.places(len(videos))
        opposite = [len(videos) - 1 - place for place in own]
        is_mixed = self._rows.mix(epoch, number) is not None
        read = [*own, *(sorted(set(opposite) - set(own)) if is_mixed else ())]
        return _Job(
            number=number,
            videos=[videos[place] for place in read],
            whole=len(videos),
            own=len(own),
            partners=[read.index(place) for place in opposite] if is_mixed else None,
        )

    def _read(self, job: _Job, epoch: int) -> HostBatch:
        rows = tuple(
            row
            for i, repeat in job.videos
            for row in self._rows.rows(self._clips[i].id, self._stores, epoch, repeat=repeat)
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

    def _batch(self, job: _Job, host: HostBatch, epoch: int) -> ClipBatch:
        clips = [self._clips[i] for i, _ in job.videos]
        labels = self._shipped(torch.tensor([clip.label for clip in clips], dtype=torch.int64))
        tensors = tuple(self._tensors(host))
        mix = self._rows.mix(epoch, job.number)
        partners = None if job.partners is None else self._shipped(torch.tensor(job.partners))
        mixed = None if mix is None else mix.targets(labels, self._num_classes, partners)
        if mix is not None:
            tensors = tuple(mix.clips(tensor, partners) for tensor in tensors)
            labels = mix.labels(labels, partners)
        return ClipBatch(
            clips=tensors[0] if len(tensors) == 1 else (tensors[0], tensors[1]),
            labels=labels,
            ids=tuple(clip.id for clip in clips[: job.own]),
            views=self._rows.views,
            mixed=mixed,
            whole=None if self._share is None else job.whole,
        )

    def _tensors(self, host: HostBatch) -> Iterator[Tensor]:
        """Yield the clips of each input, cut, changed and normalised on the device."""
        changes = [row.change for row in host.rows]
        for number, (stream, store) in enumerate(self._stores.items()):
            shapes = _shapes(host.rows, number, store.channels)
            boxes = list(_cut(host.frames[number].to(self._device, non_blocking=True), shapes))
            if stream == "rgb":
                yield rgb_clips(
                    boxes,
                    changes,
                    self._rows.clip,
                    empty=self._empty(number),
                    ship=self._shipped if self._on_gpu else None,
                )
            else:
                stacks = np.stack([row.readings[number].stack for row in host.rows])
                yield flow_clips(
                    boxes,
                    self._shipped(torch.from_numpy(stacks)),
                    changes,
                    self._rows.clip,
                    empty=self._empty(number),
                    ship=self._shipped if self._on_gpu else None,
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


class _Ahead(Iterator[R]):
    """Iterates over `work(job)` of every job in order, up to `depth` of them done ahead by threads, from now on."""

    def __init__(self, work: Callable[[J], R], jobs: Sequence[J], *, depth: int, threads: int) -> None:
        self._work = work
        self._jobs = iter(jobs)
        self._pool = ThreadPoolExecutor(threads) if depth else None
        self._waiting: deque[Future[R]] = deque()
        for _ in range(depth):
            self._submit()

    def _submit(self) -> None:
        if self._pool is not None and (job := next(self._jobs, None)) is not None:
            self._waiting.append(self._pool.submit(self._work, job))

    def __next__(self) -> R:
        if self._pool is None:
            return self._work(next(self._jobs))
        self._submit()
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft().result()

    def close(self) -> None:
        """Drop what nobody has asked for."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
