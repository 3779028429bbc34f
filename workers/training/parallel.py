"""Several processes that train one model together, one for each device: what they tell each other.

Each process, a *rank*, holds the whole model and computes its share of every batch. All ranks run the same code and
call what is here in the same order. A run of one process uses the same names, which then do nothing.
"""

from __future__ import annotations

import gc
import inspect
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from data import ClipBatch
from data.clips.share import Share
from data.seeding import generator

from .joint_norm import norms_apart
from .meeting import Meeting

T = TypeVar("T")
Loss = Callable[[ClipBatch], tuple[Tensor, Tensor]]
"""Of a batch, the loss (), a mean over its clips, with a graph, and the logits (N, classes)."""
_TIMEOUT: Final = timedelta(days=1)
"""Ranks wait for each other while one prepares a data set or writes to a slow disk. The worker's watchdog, and no clock
of a library, decides that something hangs."""
_OWN_BUFFERS: Final[dict[str, Any]] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)
"""Running statistics are of all ranks already. The name of today; PyTorch before 2.15 knows the older one."""
_SAID_OF_PEERS: Final = ("gloo", "connection closed by peer", "connection reset by peer", "nccl")


class World:
    """The ranks of a run; this class is a run of a single one."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank speaks for all: it alone writes files and reports."""
        return self.rank == 0

    @property
    def share(self) -> Share | None:
        """What this rank takes of each batch; None for all of it."""
        return None

    def agreed(self, ask: Callable[[], bool]) -> bool:
        """Return what the first rank finds when it asks."""
        return ask()

    def of_first(self, compute: Callable[[], T]) -> T:
        """Return what the first rank computes; the others wait for it."""
        return compute()

    def gathered(self, value: T) -> list[T]:
        """Return the value of each rank, in their order."""
        return [value]

    def in_turn(self) -> AbstractContextManager[None]:
        """Return a context that the other ranks enter once the first has left it."""
        return nullcontext()


ALONE: Final = World()


class Ranks(World):
    """Several processes; objects go over main memory, tensors of GPUs over NCCL.

    Objects are of plain types and tensors: they are read without running code, since they may come over a network.
    """

    def __init__(self, rank: int, size: int) -> None:
        """Take part in the default process group, which :func:`join` has made."""
        self.rank = rank
        self.size = size
        # Of CPUs: what ranks tell each other before each batch must not wait for the kernels that a GPU has queued.
        talk = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
        assert isinstance(talk, distributed.ProcessGroup)  # noqa: S101 - a number stands for a group without this rank
        self._talk = talk

    @property
    def share(self) -> Share:
        return Share(self.rank, self.size)

    def agreed(self, ask: Callable[[], bool]) -> bool:
        flag = torch.tensor(self.is_first and ask(), dtype=torch.uint8)
        self._broadcast(flag)
        return bool(flag)

    def of_first(self, compute: Callable[[], T]) -> T:
        if self.is_first:
            value = compute()
            packed = _packed(value)
            self._broadcast(torch.tensor(len(packed)))
            self._broadcast(packed)
            return value
        length = torch.tensor(0)
        self._broadcast(length)
        packed = torch.empty(int(length), dtype=torch.uint8)
        self._broadcast(packed)
        received: T = _unpacked(packed)
        return received

    def gathered(self, value: T) -> list[T]:
        ours = _packed(value)
        lengths = [torch.tensor(0) for _ in range(self.size)]
        distributed.all_gather(lengths, torch.tensor(len(ours)), group=self._talk)
        room = torch.zeros(int(max(lengths)), dtype=torch.uint8)
        found = [torch.empty_like(room) for _ in lengths]
        room[: len(ours)] = ours
        distributed.all_gather(found, room, group=self._talk)
        return [_unpacked(one[:length]) for one, length in zip(found, map(int, lengths), strict=True)]

    def _broadcast(self, tensor: Tensor) -> None:
        distributed.broadcast(tensor, src=0, group=self._talk)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        if not self.is_first:
            distributed.barrier(group=self._talk)
        yield
        if self.is_first:
            distributed.barrier(group=self._talk)


def join(rank: int, size: int, meeting: Meeting, device: torch.device) -> Ranks:
    """Be one of the ranks of this process's run; return when all are there."""
    if meeting.interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", meeting.interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", meeting.interface)
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if meeting.path:
        place: dict[str, Any] = {"init_method": f"file://{meeting.path}"}
    else:
        place = {"store": _store(rank, size, meeting)}
    distributed.init_process_group(backend, rank=rank, world_size=size, timeout=_TIMEOUT, **place)
    return Ranks(rank, size)


def _store(rank: int, size: int, meeting: Meeting) -> Any:
    return distributed.TCPStore(  # type: ignore[attr-defined] # PyTorch's `__init__` takes it from C++ under a condition
        meeting.host,
        meeting.port,
        size,
        is_master=rank == 0,
        timeout=_TIMEOUT,
        wait_for_workers=False,
        master_listen_fd=meeting.handle if rank == 0 else None,
    )


def lost_others(error: BaseException) -> bool:
    """Return whether an exception says no more than that another rank is gone, which has a reason of its own."""
    text = str(error).lower()
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _SAID_OF_PEERS)
    )


def _packed(value: object) -> Tensor:
    """Return a value as bytes, (N,) uint8."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Any:
    return torch.load(io.BytesIO(packed.numpy().tobytes()), map_location="cpu", weights_only=True)


def seed_of_rank(seed: int, rank: int, *, update: int = 0) -> int:
    """Return what a rank seeds its generators with: dropout is drawn for each rank anew.

    The first rank keeps `seed`, and with it the numbers of a run of one process.
    """
    return seed if rank == 0 else int(generator("rank", seed, rank, update).integers(2**31))


def dealt(parts: Sequence[Sequence[T]]) -> list[T]:
    """Return the items of all ranks in one order, of which each rank had every `len(parts)`-th."""
    return [parts[number % len(parts)][number // len(parts)] for number in range(sum(map(len, parts)))]


class Gradients:
    """How the gradients of a batch add up; this class is a run of a single rank."""

    def renew(self, loss_of: Loss) -> None:
        """Take note of which parameters train from now on, and of how a loss is computed."""

    def parts(self, batch: ClipBatch, most: int) -> list[ClipBatch]:
        """Return the batch in parts of `most` clips."""
        return list(batch.parts(most))

    def loss(self, loss_of: Loss, part: ClipBatch) -> tuple[Tensor, Tensor]:
        """Return what `loss_of` does."""
        return loss_of(part)

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Return a context for the forward and backward pass of one part of a batch."""
        return nullcontext()

    def scaled(self, loss: Tensor, batch: ClipBatch) -> Tensor:
        """Return the loss () whose gradient is added: `loss` is a part of the mean over `batch`."""
        return loss

    def apart(self) -> AbstractContextManager[None]:
        """Return a context in which a rank computes by itself, and may so fail by itself."""
        return nullcontext()


class SharedGradients(Gradients):
    """The mean of the gradients of all ranks, each by its share of the clips.

    PyTorch's DistributedDataParallel adds them up, while the backward pass of a batch's last part runs.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        """Prepare; `renew` comes before the first batch."""
        self._model = model
        self._world = world
        self._parallel: DistributedDataParallel | None = None
        self._trained: list[int] = []
        self._is_apart = False

    def renew(self, loss_of: Loss) -> None:
        """Wrap the model again if other parameters train than before: DDP takes note of them once."""
        trained = [number for number, p in enumerate(self._model.parameters()) if p.requires_grad]
        if trained == self._trained:
            return
        self._parallel = None  # before the next one: both have memory for all gradients
        gc.collect()
        self._parallel = DistributedDataParallel(
            _Losses(self._model, loss_of), gradient_as_bucket_view=True, **_OWN_BUFFERS
        )
        self._trained = trained

    def parts(self, batch: ClipBatch, most: int) -> list[ClipBatch]:
        """Return this rank's share of a batch in as many parts as the other ranks have."""
        whole = batch.whole or self._world.size * len(batch.ids)
        return list(batch.cut(Share(self._world.rank, self._world.size).parts(whole, most)))

    def loss(self, loss_of: Loss, part: ClipBatch) -> tuple[Tensor, Tensor]:
        if self._is_apart:
            return loss_of(part)
        loss, logits = self._wrapped(part)
        return loss, logits

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext() if is_last or self._is_apart else self._wrapped.no_sync()

    def scaled(self, loss: Tensor, batch: ClipBatch) -> Tensor:
        # DDP divides the sum over all ranks by their number.
        whole = batch.whole or self._world.size * len(batch.ids)
        return loss * (self._world.size * len(batch.ids) / whole)

    @contextmanager
    def apart(self) -> Iterator[None]:
        self._is_apart = True
        try:
            with norms_apart(self._model):
                yield
        finally:
            self._is_apart = False

    @property
    def _wrapped(self) -> DistributedDataParallel:
        assert self._parallel is not None  # noqa: S101 - `renew` comes first
        return self._parallel


class _Losses(nn.Module):
    """Computes the loss of a model as a forward pass, which is what DDP looks at."""

    def __init__(self, model: nn.Module, loss_of: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss_of = loss_of

    def forward(self, part: ClipBatch) -> tuple[Tensor, Tensor]:
        return self._loss_of(part)


def gradients_of(model: nn.Module, world: World) -> Gradients:
    """Return how the gradients of `model` add up over the ranks of a run."""
    return Gradients() if world.size == 1 else SharedGradients(model, world)
