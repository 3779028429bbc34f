"""A device whose memory is limited: it counts the tensors that a graph keeps, and refuses what is too much."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workers.training.memory import MARGIN


class _Saved:
    """A tensor that a graph keeps."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class LimitedMemory:
    """Stands in for the memory of a GPU. What is in it are the activations that autograd keeps, in bytes."""

    is_measured = True

    def __init__(self, limit: float = float("inf"), *, card: str = "card") -> None:
        self.limit = limit
        self.card = card
        self._share = 1.0
        self._storages: Counter[int] = Counter()
        self._held = 0
        self._peak = 0
        self.tries = 0
        """Times that a plan was tried."""

    def free_bytes(self) -> int | None:
        return None if self.limit == float("inf") else int(self.limit)

    def peak_bytes(self) -> int:
        return self._peak

    def clear(self) -> None:
        self._peak = self._held

    @contextmanager
    def margin(self) -> Iterator[None]:
        self.tries += 1
        self._share = 1 - MARGIN
        try:
            yield
        finally:
            self._share = 1.0

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Count what is computed in the block, and the clips that `model` sees without gradients."""
        handle = model.register_forward_pre_hook(self._before_forward)
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda saved: saved.tensor):
            yield
        handle.remove()

    def _before_forward(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not torch.is_grad_enabled():
            self._require(arguments[0].nbytes)

    def _pack(self, tensor: Tensor) -> _Saved:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if self._storages[key] == 0:
            self._require(self._held + size)
            self._held += size
        self._storages[key] += 1
        saved = _Saved(tensor.detach())
        weakref.finalize(saved, self._release, key, size)
        return saved

    def _require(self, size: int) -> None:
        if size > self._share * self.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes")
        self._peak = max(self._peak, size)

    def _release(self, key: int, size: int) -> None:
        self._storages[key] -= 1
        if self._storages[key] == 0:
            self._held -= size
