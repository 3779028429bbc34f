"""Changes to the optical flow of a whole batch at once, on GPUs: what `pixels` does clip by clip, in few kernels.

See `batched`. Clips need different numbers of fields, so that all fields of a batch are one long row here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from .augment import GEOMETRIC, Change
from .batched import Ship, Step, applied


def changed_flow(fields: Tensor, counts: Sequence[int], changes: Sequence[Change], *, ship: Ship) -> Tensor:
    """Return vectors with their scales, flips and operations, in this order; those that are given may change.

    Args:
        fields: float32 (F, 2, S, S), the fields of one clip after those of another, cut and resized.
        counts: how many of them each clip has; they add up to F.
    """
    owners = [clip for clip, count in enumerate(counts) for _ in range(count)]
    return applied(fields, _steps(owners, changes, fields.shape[-1]), ship=ship)


def _steps(owners: Sequence[int], changes: Sequence[Change], size: int) -> Iterator[Step]:
    flipped, scaled = Step(lambda fields, _: fields.flip(-1)), Step(_scaled)
    for place, owner in enumerate(owners):
        change = changes[owner]
        if change.flip:
            flipped.add(place)
        scaled.add(place, size / change.box.width * (-1 if change.flip else 1), size / change.box.height)
    yield flipped
    yield scaled
    for position in range(max((len(change.operations) for change in changes), default=0)):
        moved = Step(_moved)
        for place, owner in enumerate(owners):
            if position < len(changes[owner].operations):
                operation = changes[owner].operations[position]
                if operation.name in GEOMETRIC:
                    rows = (*operation.places(), *operation.turn())
                    moved.add(place, *(number for row in rows for number in row))
        yield moved


def _scaled(fields: Tensor, numbers: Tensor) -> Tensor:
    return fields.mul_(numbers.view(-1, 2, 1, 1))


def _moved(fields: Tensor, numbers: Tensor) -> Tensor:
    """Return fields sheared, moved or rotated with their vectors; where nothing was, nothing moves."""
    places, ((xx, xy), (yx, yy)) = numbers[:, :6].view(-1, 2, 3), _columns(numbers)
    grid = affine_grid(places, [len(fields), 1, *fields.shape[2:]], align_corners=False)
    inside = grid_sample(torch.ones_like(grid[:, None, ..., 0]), grid, align_corners=False)
    x, y = grid_sample(fields, grid, align_corners=False).mul_(inside).unbind(1)
    return torch.stack((xx * x + xy * y, yx * x + yy * y), dim=1)


def _columns(numbers: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the matrices by which vectors turn, each number as (n, 1, 1)."""
    xx, xy, yx, yy = (column.view(-1, 1, 1) for column in numbers[:, 6:].unbind(1))
    return (xx, xy), (yx, yy)
