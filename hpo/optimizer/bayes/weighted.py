"""Expected improvement, weighted: by the belief of the user about the optimum, by the probability to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...arrays import Array
from .acquisition import Acquisition, Modelled
from .space import Space

Weight = Callable[[Array], tuple[Array, Array]]
"""Maps rows to the logarithms of their weights, and the gradient of those in the coordinates; 0 for categories."""


class WeightedAcquisition(Acquisition):
    """Log expected improvement plus the logarithms of weights."""

    def __init__(
        self, space: Space, models: Sequence[Modelled], base: Array, normals: Array, weights: Sequence[Weight]
    ) -> None:
        super().__init__(space, models, base, normals)
        self._weights = weights

    def values(self, rows: Array) -> Array:
        """Return the value at rows."""
        found = super().values(rows)
        for weight in self._weights:
            found = found + weight(rows)[0]
        return found

    def __call__(self, rows: Array) -> tuple[Array, Array]:
        """Return the value at rows, and its gradient in their coordinates."""
        values, gradient = super().__call__(rows)
        for weight in self._weights:
            added, slope = weight(rows)
            values, gradient = values + added, gradient + slope
        return values, gradient
