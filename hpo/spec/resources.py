"""What each trial of a study trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field, StrictInt

from .parameters import AnyParameter, IntParameter, Strict

MOST_GPUS: Final = 64
MOST_NODES: Final = 64
_BATCH: Final = "batch_size"


class Resources(Strict):
    """The devices that a trial has at once; each computes its share of every batch."""

    gpus: Annotated[StrictInt, Field(ge=1, le=MOST_GPUS)] = 1
    """GPUs on each machine, of a worker that has as many or more; on a CPU, processes."""
    nodes: Annotated[StrictInt, Field(ge=1, le=MOST_NODES)] = 1
    """Machines, of a group of just so many: a trial has `gpus` x `nodes` GPUs in all."""


def unshared_batches(
    gpus: int, settings: Mapping[str, Any], space: Mapping[str, AnyParameter]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield where and why a batch of a study cannot be shared by so many GPUs alike.

    Args:
        settings: those that the space does not vary.
    """
    parameter = space.get(_BATCH)
    if parameter is None:
        value = settings.get(_BATCH)
        if isinstance(value, int) and value % gpus:
            yield (
                ("task", "base", _BATCH),
                f"{value} clips cannot be shared by {gpus} GPUs alike; use a multiple of {gpus}",
            )
    elif isinstance(parameter, IntParameter):
        if parameter.low % gpus or (parameter.high > parameter.low and parameter.step % gpus):
            message = f"not all values can be shared by {gpus} GPUs alike; let low and step be multiples of {gpus}"
            yield ("space", _BATCH), message
    else:
        for value in getattr(parameter, "choices", ()):
            if isinstance(value, int) and value % gpus:
                message = f"{value} clips cannot be shared by {gpus} GPUs alike; use multiples of {gpus}"
                yield ("space", _BATCH, "choices"), message
