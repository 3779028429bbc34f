"""Predict where a learning curve ends from the partial curves of a study.

A curve is read at *rungs*, epochs spaced geometrically up to the last. For each pair of neighbouring rungs a small
Bayesian linear regression learns, over all trials that were seen at both, how much a curve still gains from its
height and from what it gained last; a prediction runs the remaining regressions one after the other. Trials that
were stopped, or still run, teach the early rungs; those that were completed teach all. That the late rungs see only
the trials that were let through does no harm, since each regression is conditional on what the rule had seen.

The ingredients are known: features of the partial curve and its differences in a regression over trials (Baker et
al., 2018, Accelerating neural architecture search using performance prediction), a Bayesian belief about the end
instead of a point (Domhan et al., 2015; Swersky et al., 2014, Freeze-thaw Bayesian optimization). The chain over
rungs, which makes stopped trials count, and noise in proportion to the last gain are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Curve = Mapping[int, float]
"""Step (epochs done, from 1) to a finite value."""

_SPACING: Final = 1.5
"""Ratio of neighbouring rungs."""
_PERSISTENCE: Final = (0.7, 0.3)
"""Belief (mean, sd) about a gain as a share of the one before, over equal ratios of epochs: power laws lie near it."""
_DRIFT_SD: Final = 0.3
"""Belief about a gain that the last one does not explain, in spreads of the study's values."""
_PULL_SD: Final = 0.2
"""Belief about the slope of a gain in the height."""
_NOISE: Final = 0.5
"""Belief about the residual of a gain, in units of the last gain."""
_NOISE_WEIGHT: Final = 3.0
"""How many observations the belief about the residual weighs."""
_FLOOR: Final = 0.1
"""Part of the residual that a flat curve has too, in spreads."""
_FEW: Final = 3
"""With so few trials at a rung all count alike; with more, those of similar height count most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A Student-t belief about the last value of a curve."""

    mean: float
    sd: float
    """Scale of the distribution."""
    freedom: float
    """Degrees of freedom; few when little was seen."""

    def probability_above(self, value: float) -> float:
        """Give the probability that the curve ends above `value`."""
        from scipy.special import stdtr  # only where a rule of this kind is in use

        return float(stdtr(self.freedom, (self.mean - value) / self.sd))


def rungs(first: int, last: int) -> tuple[int, ...]:
    """Give the epochs at which curves are read: from `first` in steps of about half of what is done, up to `last`."""
    found = [first]
    while found[-1] < last:
        found.append(max(found[-1] + 1, round(found[-1] * _SPACING)))
    found = [rung for rung in found if rung < last]
    if len(found) > 1 and last < found[-1] * (1 + _SPACING) / 2:
        found.pop()  # too near to the end to save anything
    return (*found, last)


class CurveModel:
    """What the curves of a study say about how curves go on. More is better; all values must be finite."""

    def __init__(self, curves: Sequence[Curve], places: Sequence[int]) -> None:
        """Learn from `curves`, complete or not, at the rungs `places`, of which the last is the last epoch."""
        self._places = tuple(places)
        values = np.array([self._read(curve) for curve in curves], dtype=np.float64).reshape(-1, len(places))
        self._spread = _spread(values)
        self._values = values / self._spread
        self._gains = np.diff(self._values, axis=1, prepend=math.nan)

    def predict(self, curve: Curve) -> Prediction:
        """Give the belief about the last value of `curve`, which must have reached the first rung."""
        seen = self._read(curve) / self._spread
        known = np.flatnonzero(~np.isnan(seen))
        if not len(known):
            raise ValueError("the curve has not reached the first rung")
        at = int(known[-1])
        height, gain, freedom, residual = float(seen[at]), _gain(seen, at), math.inf, None
        covariance = np.zeros((2, 2))
        for place in range(len(self._places) - 1):
            is_known = place < at and not np.isnan(seen[place])
            fit = self._fit(place, float(seen[place]) if is_known else height, residual)
            residual = fit.residual if place else None  # the first rung has another unit
            if place < at:
                continue
            freedom = min(freedom, fit.freedom)
            covariance = fit.propagate(covariance, gain)
            gain = fit.gain(gain)
            height += gain
        sd = math.sqrt(covariance[0, 0]) if at < len(self._places) - 1 else 0.0
        return Prediction(mean=height * self._spread, sd=max(sd * self._spread, 1e-12), freedom=min(freedom, 1e6))

    def _fit(self, place: int, height: float, residual: float | None) -> _Fit:
        """Fit the gain from rung `place` to the next, around `height`; `residual` is that of the rung before."""
        here, gains = self._values[:, place], self._gains[:, place]
        if place == 0:
            gains = np.zeros_like(here)
        both = ~np.isnan(here) & ~np.isnan(self._values[:, place + 1]) & ~np.isnan(gains)
        here, last, then = here[both], gains[both], self._values[both, place + 1]
        unit = np.abs(last) + _FLOOR if place else np.ones_like(here)
        features = np.stack([np.ones_like(here), here - height, last], axis=1) / unit[:, None]
        mean, precision = self._prior(place)
        believed = _NOISE**2 if residual is None else residual
        return _Fit(
            features=features,
            gains=(then - here) / unit,
            weights=_similarity(here, height),
            prior=(mean, precision * believed),
            residual_prior=believed,
            is_first=place == 0,
        )

    def _prior(self, place: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if place == 0:
            return np.array([_DRIFT_SD, 0.0, 0.0]), np.array([_DRIFT_SD, _PULL_SD, 1.0]) ** -2
        before, here, after = self._places[place - 1 : place + 2]
        persistence = _PERSISTENCE[0] * math.log(after / here) / math.log(here / before)
        # Past the first rung, drift and pull are beliefs about residuals, which are as small as flat curves are flat.
        sds = np.array([_DRIFT_SD * 3 * _FLOOR, _PULL_SD * 3 * _FLOOR, _PERSISTENCE[1]])
        return np.array([0.0, 0.0, persistence]), sds**-2

    def _read(self, curve: Curve) -> NDArray[np.float64]:
        """Give the first value reported at or after each rung and before the next; lost ones from their neighbours."""
        found = np.full(len(self._places), math.nan)
        for step in sorted(curve, reverse=True):
            place = int(np.searchsorted(self._places, step, side="right")) - 1
            if place >= 0:
                found[place] = curve[step]
        known = np.flatnonzero(~np.isnan(found))
        if len(known):
            between = slice(known[0], known[-1] + 1)
            found[between] = np.interp(np.log(self._places[between]), np.log(self._places)[known], found[known])
        return found


class _Fit:
    """A weighted Bayesian linear regression with a normal-inverse-gamma prior (Bishop, 2006, section 3.3)."""

    def __init__(
        self,
        *,
        features: NDArray[np.float64],
        gains: NDArray[np.float64],
        weights: NDArray[np.float64],
        prior: tuple[NDArray[np.float64], NDArray[np.float64]],
        residual_prior: float,
        is_first: bool,
    ) -> None:
        mean, precision = prior
        weighted = features * weights[:, None]
        self._covariance = np.linalg.inv(np.diag(precision) + weighted.T @ features)
        self._coefficients = self._covariance @ (precision * mean + weighted.T @ gains)
        error = gains - features @ self._coefficients
        shift = self._coefficients - mean
        squares = float(weights @ error**2 + precision @ shift**2)
        self.freedom = _NOISE_WEIGHT + float(weights.sum())
        self.residual = max((_NOISE_WEIGHT * residual_prior + squares) / self.freedom, 1e-12)
        self._is_first = is_first

    def gain(self, last: float) -> float:
        """Give the expected gain of a curve at the height of the fit, whose last gain was `last`."""
        return float(self._coefficients[0] + self._coefficients[2] * last)

    def propagate(self, covariance: NDArray[np.float64], last: float) -> NDArray[np.float64]:
        """Carry the uncertainty of (height, last gain) over the gain."""
        _, pull, persistence = self._coefficients
        carry = np.array([[1 + pull, persistence], [pull, persistence]])
        at = np.array([1.0, 0.0, last])
        unit = 1.0 if self._is_first else abs(last) + _FLOOR
        new = self.residual * (unit**2 + float(at @ self._covariance @ at) + float(covariance[1, 1]))
        carried: NDArray[np.float64] = carry @ covariance @ carry.T + new
        return carried


def _gain(seen: NDArray[np.float64], at: int) -> float:
    """Give what a curve gained last, 0 where that was not seen."""
    gain = float(seen[at] - seen[at - 1]) if at else 0.0
    return gain if math.isfinite(gain) else 0.0


def _similarity(heights: NDArray[np.float64], height: float) -> NDArray[np.float64]:
    width = float(np.std(heights)) if len(heights) > _FEW else 0.0
    if width <= 0:
        return np.ones_like(heights)
    return np.asarray(np.exp(-0.5 * ((heights - height) / width) ** 2))


def _spread(values: NDArray[np.float64]) -> float:
    """Give a robust standard deviation of all values seen."""
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return 1.0
    low, high = np.percentile(known, [10, 90])
    return float(high - low) / 2.56 or float(np.std(known)) or 1.0
