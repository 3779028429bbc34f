"""The logarithm of the expected improvement over a set of incumbents, accurate also where the improvement is tiny.

One formula covers any number of objectives: the improvement of a new point is the volume that it dominates inside
disjoint cells that are not dominated yet. With one objective there is one cell, from the best value to infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from ...arrays import Array, Mask

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_SQRT_HALF_PI = math.sqrt(math.pi / 2)
_ASYMPTOTIC_BELOW = -1e5


def log_h(z: Array) -> tuple[Array, Array, Array]:
    """Return log h(z), cdf(z) / h(z) and pdf(z) / h(z), where h(z) = pdf(z) + z cdf(z).

    h is the expected improvement of a standard normal over -z. Below -1 the sum would lose digits by cancellation,
    which the scaled complementary error function avoids (Ament et al., 2023, "Unexpected Improvements to Expected
    Improvement", eq. 9).
    """
    below = np.minimum(z, -1.0)
    mills = _SQRT_HALF_PI * erfcx(-below / math.sqrt(2))
    left = np.where(below < _ASYMPTOTIC_BELOW, below**-2.0, np.maximum(1 + below * mills, 1e-12))
    above = np.maximum(z, -1.0)
    pdf, cdf = np.exp(-0.5 * above * above - _LOG_SQRT_2PI), ndtr(above)
    right = pdf + above * cdf
    is_left = z < -1.0
    value = np.where(is_left, -0.5 * below * below - _LOG_SQRT_2PI + np.log(left), np.log(right))
    return value, np.where(is_left, mills / left, cdf / right), np.where(is_left, 1 / left, pdf / right)


def log_gain(mean: Array, sd: Array, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    """Return log E[(min(f, upper) - lower)+] of a normal f, and its derivatives by mean and sd.

    `upper` may be infinite.
    """
    value, by_mean, by_sd = log_h((mean - lower) / sd)
    bounded = np.isfinite(upper)
    if bounded.any():
        value_b, by_mean_b, by_sd_b = log_h((mean - np.where(bounded, upper, 0.0)) / sd)
        share = np.where(bounded, np.exp(np.minimum(value_b - value, -1e-15)), 0.0)
        by_mean, by_sd = (by_mean - share * by_mean_b) / (1 - share), (by_sd - share * by_sd_b) / (1 - share)
        value = value + np.log1p(-share)
    return np.log(sd) + value, by_mean / sd, by_sd / sd


def log_probability(mean: Array, sd: Array, threshold: float) -> tuple[Array, Array, Array]:
    """Return log P(f >= threshold) of a normal f, and its derivatives by mean and sd."""
    z = (mean - threshold) / sd
    slope = np.where(
        z < 0,
        1 / (_SQRT_HALF_PI * erfcx(-np.minimum(z, 0.0) / math.sqrt(2))),
        np.exp(-0.5 * z * z - _LOG_SQRT_2PI) / ndtr(np.maximum(z, 0.0)),
    )
    return log_ndtr(z), slope / sd, -slope * z / sd


# ---------------------------------------------------------------- the region that is not dominated


def is_dominated(values: Array) -> Mask:
    """Return which rows of `values` (n, objectives; more is better) another row dominates: (n,)."""
    at_least = (values[None, :, :] >= values[:, None, :]).all(axis=2)
    more = (values[None, :, :] > values[:, None, :]).any(axis=2)
    return np.asarray(np.any(at_least & more, axis=1))


def cells(front: Array, reference: Array) -> tuple[Array, Array]:
    """Return the corners (lower, upper) of disjoint cells: the region above `reference` not dominated by `front`.

    The last objective is cut into slabs at the values of the front. Inside a slab only the points above it dominate,
    so each slab is cut in the same way with one objective less.
    """
    found = _cells(front[(front > reference).all(axis=1)], reference)
    lower, upper = zip(*found, strict=True)
    return np.array(lower), np.array(upper)


def _cells(front: Array, reference: Array) -> list[tuple[list[float], list[float]]]:
    if len(reference) == 1:
        best = max(float(reference[0]), *front[:, 0].tolist()) if len(front) else float(reference[0])
        return [([best], [math.inf])]
    edges: Sequence[float] = [float(reference[-1]), *sorted(set(front[:, -1].tolist())), math.inf]
    found: list[tuple[list[float], list[float]]] = []
    below: dict[tuple[float, ...], int] = {}
    for low, high in pairwise(edges):
        above = front[front[:, -1] >= high][:, :-1] if math.isfinite(high) else front[:0, :-1]
        kept = above[~is_dominated(above)] if len(above) > 1 else above
        here = {}
        for lower, upper in _cells(kept, reference[:-1]):
            # A cell that continues one of the slab below is merged with it: with three or more objectives most do.
            place = below.get((*lower, *upper), len(found))
            if place == len(found):
                found.append(([*lower, low], [*upper, high]))
            found[place][1][-1] = high
            here[(*lower, *upper)] = place
        below = here
    return found
