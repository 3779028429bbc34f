"""Kernels of a Gaussian process: the correlation of two configurations as a function of their squared distance.

    Matern-5/2    m(d) = (1 + sqrt(5) d + 5 d^2 / 3) exp(-sqrt(5) d)    twice differentiable functions
    Gaussian      g(d) = exp(-d^2 / 2)                                  infinitely often differentiable ones

(Rasmussen and Williams, 2006, "Gaussian Processes for Machine Learning", eq. 4.17 and 4.9.) The Gaussian kernel is a
product over parameters and assumes smoother functions, about which a few observations say more; the Matern kernel is
misled less by rough functions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...arrays import Array

Kernel = Callable[[Array], tuple[Array, Array]]
"""Maps squared distances to the kernel (1 at distance 0) and its derivative by the squared distance."""

DISTANCE_FROM_MIDDLE = -1
"""Index that marks, among the axes of embedded columns, the column that the mean reads and no distance does."""
_SQRT5 = float(np.sqrt(5.0))


def matern(squared: Array) -> tuple[Array, Array]:
    """Return the Matern-5/2 kernel and its derivative by the squared distance."""
    scaled = _SQRT5 * np.sqrt(squared)
    decay = np.exp(-scaled)
    return (1 + scaled + (5 / 3) * squared) * decay, (-5 / 6) * (1 + scaled) * decay


def gaussian(squared: Array) -> tuple[Array, Array]:
    """Return the Gaussian kernel and its derivative by the squared distance."""
    found = np.exp(-0.5 * squared)
    return found, -0.5 * found
