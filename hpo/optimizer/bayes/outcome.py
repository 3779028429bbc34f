"""Transforms of a metric: models see the monotone transform under which it looks most like a Gaussian process.

A *gain* is a metric with its sign chosen so that more is better. Three shapes are compared by marginal likelihood (with
the Jacobian of the transform, so that all are compared on the same data):

    identity        the gains
    log of the gap  -log(ceiling - gain): differences near the best count, those between bad ones do not
    log of a size   the logarithm of a metric that is always positive, such as memory

and then standardised. Gains far below the rest are first raised to a lower limit, the fence (winsorised): one diverged
loss must not flatten the differences among all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...arrays import Array

_FENCE_QUARTILE_GAPS = 8.0
"""The fence lies this many times below the best as the lowest quartile of the first outcomes does."""
_CEILING_GAPS = (1.0, 0.1)
"""Distances of the candidate ceilings above the best gain, in median gaps of the first outcomes."""
_FIRST_OUTCOMES = 10
"""The first outcomes are spread over the space. Later ones gather near the best: a fence or a ceiling that followed
their gaps would magnify the best region and hide the differences elsewhere."""
_COMPARED_FROM = 12
"""Number of outcomes from which on transforms are compared: with noise, fewer choose one by chance."""
_CEILING_NOISES = 2.0
"""Least distance of a ceiling above the best gain, in standard deviations of the noise: nearer to the ceiling than the
noise is wide, the logarithm of a gap says more about the noise than about the configuration."""
_SHARE_SPREAD = 0.25
"""Spread that is believed of a metric between 0 and 1, as a share of the distance of its mean from the nearer end."""
_SHARE_SPREAD_WEIGHT = 2.0
"""How many outcomes that belief weighs."""
_RELATIVE_ROUNDING = 1e-12
_SMALLEST_SPREAD = 1e-100
"""Numbers that spread by less than this, or by less than rounding errors of their size, count as constant."""


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
        """Return the derivative of `forward`; below the fence, that at the fence."""
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


def objective_transforms(gains: Array, threshold: float = -math.inf, *, noise_sd: float = 0.0) -> list[Transform]:
    """Return the transforms worth comparing for the gains of an objective, the simplest first.

    All of them are defined at the `threshold` of a constraint `gain >= threshold`: ceilings below it are left out, and
    so are those that noise with the standard deviation `noise_sd` of a typical gain could reach.
    """
    fence, best = fence_of(gains), float(gains.max())
    gaps = best - np.maximum(gains[:_FIRST_OUTCOMES], fence)
    typical = float(np.median(gaps[gaps > 0])) if np.any(gaps > 0) else 0.0
    found = [Transform(fence=fence)]
    if _varies(typical, abs(best)):
        ceilings = [best + share * typical for share in _CEILING_GAPS]
        lowest = max(threshold, best + _CEILING_NOISES * noise_sd)
        found += [Transform(fence=fence, ceiling=ceiling) for ceiling in ceilings if ceiling > lowest]
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
    """Return the fence: the gain to which worse gains are raised."""
    best = float(gains.max())
    quartile = best - float(np.quantile(gains[:_FIRST_OUTCOMES], 0.25))
    return best - _FENCE_QUARTILE_GAPS * quartile if quartile > 0 else -math.inf


def standardised(transform: Transform, gains: Array) -> Transform:
    """Return the transform with the centre and scale that make the targets of `gains` have mean 0 and variance 1.

    The first few gains may be alike by chance. Where a gain is a share, such as an accuracy, a belief about its spread
    counts like `_SHARE_SPREAD_WEIGHT` more of them, so that their targets have a smaller variance.
    """
    shaped = transform.forward(gains)
    scale = float(shaped.std())
    if transform.ceiling is None and transform.floor is None and gains.min() >= 0 and gains.max() <= 1:
        believed = _SHARE_SPREAD * min(float(shaped.mean()), 1 - float(shaped.mean()))
        weight = _SHARE_SPREAD_WEIGHT / (_SHARE_SPREAD_WEIGHT + len(gains))
        scale = math.sqrt((1 - weight) * scale**2 + weight * believed**2)
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
    """Return the transforms that `count` outcomes can tell apart: of few outcomes only the first, the identity."""
    return transforms if count >= _COMPARED_FROM else transforms[:1]


def _varies(spread: float, size: float) -> bool:
    """Return whether numbers of magnitude `size` with this spread differ by more than rounding."""
    return spread > max(_RELATIVE_ROUNDING * size, _SMALLEST_SPREAD)
