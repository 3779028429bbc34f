"""Batches that a GPU copies and changes while it computes the one before."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .batch import ClipBatch


def streamed(made: Iterator[ClipBatch], device: torch.device) -> Iterator[ClipBatch]:
    """Yield batches that are made on a stream of their own, each before the one in front of it is asked for.

    What is made there, the current stream waits for, and the memory of a batch is used again when that one is done
    with it.
    """
    beside = torch.cuda.Stream(device)
    waiting: tuple[ClipBatch, torch.cuda.Event] | None = None
    while True:
        with torch.cuda.stream(beside):
            batch = next(made, None)
            following = None if batch is None else (batch, beside.record_event())
        if waiting is not None:
            ready, event = waiting
            waiting = None
            current = torch.cuda.current_stream(device)
            current.wait_event(event)
            for tensor in ready.tensors():
                tensor.record_stream(current)
            yield ready
            del ready
        if following is None:
            return
        waiting, following, batch = following, None, None
