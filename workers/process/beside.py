"""Checkpoints written while the next epoch trains: a copy of the state in main memory, and one write at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from typing import Any, Final

import torch
from torch import Tensor

LARGE_BYTES: Final = 16 * 2**20
"""A smaller state is written before the training goes on: that costs less than a decision that comes a batch later."""


class Beside:
    """Work of the end of an epoch, in a thread, in the order in which it was given."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._running: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin `work` once the work before it is done; what that one raised is raised here."""
        self.drain()
        self._running = self._thread.submit(work)

    def check(self) -> None:
        """Raise what the work has raised, if it is over; wait for nothing."""
        if self._running is not None and self._running.done():
            self.drain()

    def drain(self) -> None:
        """Wait until nothing is left to do; raise what the work has raised, once."""
        running, self._running = self._running, None
        if running is not None:
            running.result()


def is_large(state: Mapping[str, Any]) -> bool:
    """Return whether the tensors of a state are large enough to be written beside the training."""
    return _bytes(state) >= LARGE_BYTES


def on_host(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a state in main memory, which the training does not change. Tensors that are one stay one."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    found: dict[str, Any] = _copied(dict(state), copies)
    return found


def _copied(value: Any, copies: dict[tuple[Any, ...], Tensor]) -> Any:
    match value:
        case Tensor():
            place = value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype
            if place not in copies or value.numel() == 0:
                copies[place] = value.detach().to("cpu", copy=True)
            return copies[place]
        case dict():
            copied = copy(value)  # with what a state dict has beside its tensors
            copied.update((key, _copied(inner, copies)) for key, inner in value.items())
            return copied
        case list() | tuple() if type(value) in (list, tuple):
            return type(value)(_copied(inner, copies) for inner in value)
        case _:
            return value


def _bytes(value: Any) -> int:
    match value:
        case torch.Tensor():
            return value.nbytes
        case Mapping():
            return sum(map(_bytes, value.values()))
        case list() | tuple():
            return sum(map(_bytes, value)) if value and not isinstance(value[0], int | float | str) else 0
        case _:
            return 0
