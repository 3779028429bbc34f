"""Undoing an update that failed before it reached the weights, so that it can be made again in another way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import TornUpdateError
from .failure import ran_out_of_memory
from .reproducibility import random_state, restore_random_state


class Undo:
    """Puts back what forward passes change besides gradients: random states, and buffers such as running statistics."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """Reserve memory for the buffers of `model`, so that none is needed when there is none left."""
        self._buffers = list(_by_type(model.buffers()))
        self._kept = [[buffer.clone() for buffer in same] for same in self._buffers]
        self._device = device

    @contextmanager
    def on_error(self) -> Iterator[None]:
        """Put all of it back as it was if the block raises an exception, which goes on."""
        random = random_state(self._device)
        _copy(self._kept, self._buffers)
        try:
            yield
        except BaseException:
            _copy(self._buffers, self._kept)
            restore_random_state(random, self._device)
            raise


@contextmanager
def whole_or_torn(device: torch.device) -> Iterator[None]:
    """Say of a block that ran out of memory that its changes cannot be undone.

    Raises:
        TornUpdateError: memory of `device` ran out in the block.
    """
    try:
        yield
    except Exception as error:  # of many classes, when memory runs out; all others are raised again
        if not ran_out_of_memory(error, device):
            raise
        raise TornUpdateError(f"memory ran out in the optimizer: {error}") from error


def _by_type(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Return the tensors, those of one type together."""
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.dtype, []).append(tensor)
    return found.values()


def _copy(targets: list[list[Tensor]], sources: list[list[Tensor]]) -> None:
    with torch.no_grad():
        for into, out_of in zip(targets, sources, strict=True):
            torch._foreach_copy_(into, out_of)  # on a GPU, tensors of one type in a few launches
