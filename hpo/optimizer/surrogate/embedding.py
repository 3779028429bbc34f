"""The embedding of a search space (`hpo.optimizer.bayes.space`) as a differentiable function of the coordinates."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...arrays import Array
from ..bayes.space import Axis, Space

_ARC_ANGLE = math.pi


class Embedding(torch.nn.Module):
    """Maps rows (..., dimensions) of a space to the points (..., columns) between which the kernel measures distances.

    The result is that of `Space.embed`, with gradients in every number that is active.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._space = space
        self._corners = [_corners(axis) for axis in space.axes]
        # Columns that a space adds behind those of its axes are the same for all rows.
        own = sum(_width(axis) for axis in space.axes) + 1
        blank = np.array([axis.coordinate(axis.value(0.0)) for axis in space.axes])[None]
        self._constant = torch.as_tensor(space.embed(blank)[0, own:])
        self.columns = torch.as_tensor(space.columns)
        """Which parameter each column belongs to."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return the points of rows."""
        active = self._active(rows)
        parts = [self._part(place, rows[..., place], active[place]) for place in range(self._space.dimensions)]
        constant = self._constant.expand(*rows.shape[:-1], len(self._constant))
        return torch.cat([*parts, self._from_middle(rows, active)[..., None], constant], dim=-1)

    def _from_middle(self, rows: Tensor, active: list[Tensor | None]) -> Tensor:
        """Return the squared distances from the middle of the space."""
        found = torch.zeros(rows.shape[:-1], dtype=torch.double)
        for place, (axis, weight) in enumerate(zip(self._space.axes, self._space.middle_weights, strict=True)):
            if weight:
                centred = 2 * rows[..., place] - 1
                distance = torch.sin(_ARC_ANGLE / 2 * centred) if axis.is_conditional else centred
                squared, holds = weight * distance.square(), active[place]
                found = found + (squared if holds is None else torch.where(holds, squared, 0.0))
        return found

    def _active(self, rows: Tensor) -> list[Tensor | None]:
        """Return, by axis, where it is active; None where it always is."""
        found: list[Tensor | None] = [None] * self._space.dimensions
        for place in self._space.order:
            for parent, values in self._space.axes[place].conditions:
                holds = self._is_one_of(self._space.axes[parent], rows[..., parent], values)
                for also in (found[parent], found[place]):
                    holds = holds if also is None else holds & also
                found[place] = holds
        return found

    def _is_one_of(self, axis: Axis, coordinates: Tensor, values: tuple[int, ...]) -> Tensor:
        indices = torch.round(coordinates if axis.is_categorical else coordinates * (axis.count - 1))
        return torch.isin(indices, torch.tensor(values, dtype=indices.dtype))

    def _part(self, place: int, coordinates: Tensor, active: Tensor | None) -> Tensor:
        axis, corners = self._space.axes[place], self._corners[place]
        if corners is not None:
            points = corners[torch.round(coordinates).long()]
        elif axis.is_conditional:
            angle = _ARC_ANGLE * (coordinates - 0.5)
            points = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1) / _ARC_ANGLE
        else:
            return coordinates[..., None]
        return points if active is None else torch.where(active[..., None], points, 0.0)


def _width(axis: Axis) -> int:
    return axis.count if axis.is_categorical else 2 if axis.is_conditional else 1


def _corners(axis: Axis) -> Tensor | None:
    if not axis.is_categorical:
        return None
    corners: Array = np.eye(axis.count) / math.sqrt(2)
    return torch.as_tensor(corners - corners.mean(axis=0) if axis.is_conditional else corners)
