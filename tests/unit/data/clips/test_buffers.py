"""Memory of batches: used again, but never while anybody can still see what is in it."""

from __future__ import annotations

import torch

from data.clips.buffers import BatchMemory


def test_unused_memory_is_given_out_again() -> None:
    memory = BatchMemory()
    place = memory.bytes(1000).data_ptr()
    assert memory.bytes(1000).data_ptr() == place
    assert memory.floats((10, 20)).data_ptr() == place  # fewer bytes
    assert memory.bytes(10_000).data_ptr() != place


def test_memory_in_use_is_not_changed() -> None:
    memory = BatchMemory()
    first = memory.floats((4, 5)).fill_(1)
    second = memory.floats((4, 5)).fill_(2)
    view, detached = first[1:, 2:], first.detach()
    del first
    third = memory.floats((4, 5)).fill_(3)
    assert (view == 1).all()
    assert (detached == 1).all()
    assert (second == 2).all()
    assert len({tensor.data_ptr() for tensor in (detached, second, third)}) == 3


def test_no_more_than_a_few_blocks_are_kept_for_later() -> None:
    memory = BatchMemory()
    held = [memory.bytes(100) for _ in range(30)]
    assert len({tensor.data_ptr() for tensor in held}) == 30
    held.clear()
    assert len(memory._free) == 8


def test_memory_of_a_graph_is_not_changed() -> None:
    memory = BatchMemory()
    weight = torch.full((3,), 2.0, requires_grad=True)
    loss = (memory.floats((3,)).fill_(5) * weight).sum()
    memory.floats((3,)).fill_(-1)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [5.0, 5.0, 5.0]
