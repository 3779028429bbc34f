"""What is modelled of a metric: a monotone transform of it in which it looks most like a Gaussian process.

A *gain* is a metric turned so that more is better. Three shapes are compared by marginal likelihood (with the
Jacobian of the transform, so that the comparison is about the same data):

    identity        gains as they are
    log of the gap  -log(ceiling - gain): differences near the best count, those between bad ones do not
    log of a size   the logarithm of a metric that is always positive, such as memory

and then standardised. Gains far below the rest are first raised to a fence (winsorised): one diverged loss must not
flatten the differences among all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Array

_FENCE = 8.0
"""Gaps to the best beyond so many times the worst quartile's among the first outcomes are cut."""
_CEILINGS = (1.0, 0.1)
"""How far above the best gain the ceilings of the log of the gap lie, in median gaps of the first outcomes."""
_FIRST = 10
"""The first outcomes are spread over the space. Later ones gather at the best, and a fence or a ceiling that followed
their gaps would turn whatever has been found into a needle that hides the rest."""
_TINY = 1e-12
_LEAST = 1e-100
"""What spreads by less than this, or by less than a tiny share of its size, is constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """A monotone increasing map of gains to standardised targets."""

    fence: float = -math.inf
    ceiling: float | None = None
    """Where the logarithm of the gap ends; None for the identity."""
    floor: float | None = None
    """Where the logarithm of the size begins; at most one of the two is given."""
    centre: float = 0.0
    scale: float = 1.0

    def forward(self, gains: Array) -> Array:
        """Return the targets of gains; those beyond the end of the transform become infinite."""
        return (self._shape(np.maximum(gains, self.fence)) - self.centre) / self.scale

    def inverse(self, targets: Array) -> Array:
        """Return the gains of targets."""
        shaped = np.asarray(targets) * self.scale + self.centre
        if self.ceiling is not None:
            return np.asarray(self.ceiling - np.exp(-shaped))
        if self.floor is not None:
            return np.asarray(self.floor + np.exp(shaped))
        return shaped

    def slope(self, gains: Array) -> Array:
        """Return the derivative of `forward`, from inside the fence."""
        gains = np.maximum(gains, self.fence)
        if self.ceiling is not None:
            return np.asarray(1 / (self.scale * (self.ceiling - gains)))
        if self.floor is not None:
            return np.asarray(1 / (self.scale * (gains - self.floor)))
        return np.full(gains.shape, 1 / self.scale)

    def _shape(self, gains: Array) -> Array:
        with np.errstate(divide="ignore"):
            if self.ceiling is not None:
                return np.asarray(-np.log(np.maximum(self.ceiling - gains, 0.0)))
            if self.floor is not None:
                return np.asarray(np.log(np.maximum(gains - self.floor, 0.0)))
        return gains


def objective_transforms(gains: Array, threshold: float = -math.inf) -> list[Transform]:
    """Return the transforms worth comparing for the gains of an objective, the simplest first.

    All of them reach the `threshold` of a constraint `gain >= threshold`: a gap below it has no logarithm there.
    """
    fence, best = fence_of(gains), float(gains.max())
    gaps = best - np.maximum(gains[:_FIRST], fence)
    typical = float(np.median(gaps[gaps > 0])) if np.any(gaps > 0) else 0.0
    found = [Transform(fence=fence)]
    if _varies(typical, abs(best)):
        ceilings = [best + share * typical for share in _CEILINGS]
        found += [Transform(fence=fence, ceiling=ceiling) for ceiling in ceilings if ceiling > threshold]
    return [standardised(transform, gains) for transform in found]


def constraint_transforms(gains: Array, threshold: float) -> list[Transform]:
    """Return the transforms worth comparing for a constraint `gain >= threshold`, the simplest first."""
    found = [Transform()]
    values = np.append(gains, threshold)
    if values.min() > 0:
        found.append(Transform(floor=0.0))
    elif values.max() < 0:
        found.append(Transform(ceiling=0.0))
    return [standardised(transform, gains) for transform in found]


def fence_of(gains: Array) -> float:
    """Return the gain to which worse ones are raised."""
    best = float(gains.max())
    quartile = best - float(np.quantile(gains[:_FIRST], 0.25))
    return best - _FENCE * quartile if quartile > 0 else -math.inf


def standardised(transform: Transform, gains: Array) -> Transform:
    """Return the transform with the centre and scale that make the targets of `gains` have mean 0 and variance 1."""
    shaped = transform.forward(gains)
    scale = float(shaped.std())
    return Transform(
        fence=transform.fence,
        ceiling=transform.ceiling,
        floor=transform.floor,
        centre=float(shaped.mean()),
        scale=scale if _varies(scale, float(np.abs(shaped).max())) else 1.0,
    )


def log_jacobian(transform: Transform, gains: Array) -> float:
    """Return the logarithm of the density ratio between gains and their targets."""
    return float(np.log(transform.slope(gains)).sum())


def worth_comparing(transforms: Sequence[Transform], count: int) -> Sequence[Transform]:
    """Return the transforms that `count` outcomes can tell apart: the identity alone for a handful."""
    return transforms if count >= 5 else transforms[:1]


def _varies(spread: float, size: float) -> bool:
    """Whether numbers of a size that spread by so much differ by more than rounding."""
    return spread > max(_TINY * size, _LEAST)
