"""The volume that a set of outcomes dominates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def hypervolume(losses: ArrayLike, corner: ArrayLike) -> float:
    """Return the area between the front of `losses` (n, 2) and `corner` (2,), both objectives minimized.

    Outcomes that are not better than the corner in both objectives add nothing.
    """
    front = pareto_front(np.asarray(losses, dtype=np.float64), np.asarray(corner, dtype=np.float64))
    edge = np.append(np.asarray(corner, dtype=np.float64)[1], front[:-1, 1]) if len(front) else front[:, 1]
    return float(np.sum((np.asarray(corner, dtype=np.float64)[0] - front[:, 0]) * (edge - front[:, 1])))


def pareto_front(losses: NDArray[np.float64], corner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the non-dominated rows that are better than the corner, by ascending first objective."""
    inside = losses[np.all(losses < corner, axis=1)]
    ordered = inside[np.lexsort((inside[:, 1], inside[:, 0]))]
    least = np.minimum.accumulate(ordered[:, 1]) if len(ordered) else ordered[:, 1]
    improves = np.append(True, least[1:] < least[:-1])[: len(ordered)]
    front: NDArray[np.float64] = ordered[improves]
    return front
