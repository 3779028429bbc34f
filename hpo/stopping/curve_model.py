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
from itertools import pairwise
from typing import Final

import numpy as np

from ..arrays import Array, Indices

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
_UNWEIGHTED_TRIALS: Final = 3
"""With at most this many trials at a rung all have the same weight; with more, those of similar height have most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A Student-t belief about the last value of a curve."""

    mean: float
    sd: float
    """Scale of the distribution."""
    freedom: float
    """Degrees of freedom; few when little was seen."""

    def probability_above(self, value: float) -> float:
        """Return the probability that the curve ends above `value`."""
        from scipy.special import stdtr  # only where a rule of this kind is in use

        return float(stdtr(self.freedom, (self.mean - value) / self.sd))


def rungs(first: int, last: int) -> tuple[int, ...]:
    """Return the epochs at which curves are read: from `first` in steps of about half of what is done, up to `last`."""
    found = [first]
    while found[-1] < last:
        found.append(max(found[-1] + 1, round(found[-1] * _SPACING)))
    found = [rung for rung in found if rung < last]
    if len(found) > 1 and last < found[-1] * (1 + _SPACING) / 2:
        found.pop()  # too near to the end to save anything
    return (*found, last)


class CurveModel:
    """What the curves of a study say about how curves continue. More is better; all values must be finite."""

    def __init__(self, curves: Sequence[Curve], places: Sequence[int], *, improves: bool = True) -> None:
        """Learn from `curves`, complete or not, at the rungs `places`, of which the last is the last epoch.

        `improves` says whether training is believed to raise the metric.
        """
        self._improves = improves
        self._places = tuple(places)
        values = _read(curves, self._places)
        self._centre, self._spread = _scale(values)
        self._values = (values - self._centre) / self._spread
        # What a curve gained before its first value counts as nothing.
        self._gains = np.nan_to_num(np.diff(self._values, axis=1, prepend=math.nan))

    def predict(self, curve: Curve) -> Prediction:
        """Return the belief about the last value of `curve`, which must have reached the first rung."""
        (found,) = self.predict_all([curve])
        return found

    def predict_all(self, curves: Sequence[Curve]) -> list[Prediction]:
        """Return the beliefs about the last values of `curves`, all of which must have reached the first rung."""
        seen = (_read(curves, self._places) - self._centre) / self._spread
        known = ~np.isnan(seen)
        if not known.any(axis=1).all():
            raise ValueError("a curve has not reached the first rung")
        last = len(self._places) - 1
        at = last - np.argmax(known[:, ::-1], axis=1)
        chain = _Chain(seen, at)
        believed = np.full(len(seen), _NOISE**2)
        for place in range(last):
            heights = np.where((place < at) & known[:, place], seen[:, place], chain.height)
            fit = self._fit(place, heights, believed)
            # The residual of the first rung has another unit.
            believed = fit.residual if place else believed
            chain.advance(fit, place)
        sds = np.where(at < last, chain.deviation[:, 0] * self._spread, 0.0)
        means = self._centre + self._spread * chain.height
        rows = zip(means, np.maximum(sds, 1e-12), np.minimum(chain.freedom, 1e6), strict=True)
        return [Prediction(mean=float(mean), sd=float(sd), freedom=float(freedom)) for mean, sd, freedom in rows]

    def _fit(self, place: int, heights: Array, believed: Array) -> _Fits:
        """Fit the gain from rung `place` to the next around each of `heights`; `believed` are the prior residuals."""
        both = ~np.isnan(self._values[:, place]) & ~np.isnan(self._values[:, place + 1])
        here, last, then = self._values[both, place], self._gains[both, place], self._values[both, place + 1]
        unit = np.abs(last) + _FLOOR if place else np.ones_like(here)
        mean, precision = self._prior(place)
        return _Fits(
            rows=np.stack([np.ones_like(here), here, last, then - here], axis=1) / unit[:, None],
            weights=_similarity(here, heights),
            heights=heights,
            prior=(mean, precision * believed[:, None]),
            believed=believed,
            is_first=place == 0,
        )

    def _prior(self, place: int) -> tuple[Array, Array]:
        if place == 0:
            return np.array([_DRIFT_SD * self._improves, 0.0, 0.0]), np.array([_DRIFT_SD, _PULL_SD, 1.0]) ** -2
        before, here, after = self._places[place - 1 : place + 2]
        persistence = _PERSISTENCE[0] * math.log(after / here) / math.log(here / before)
        # Past the first rung, drift and pull are beliefs about residuals, which are as small as flat curves are flat.
        sds = np.array([_DRIFT_SD * 3 * _FLOOR, _PULL_SD * 3 * _FLOOR, _PERSISTENCE[1]])
        return np.array([0.0, 0.0, persistence]), sds**-2


class _Fits:
    """Weighted Bayesian linear regressions, one per height, with normal-inverse-gamma priors (Bishop, 2006, 3.3)."""

    def __init__(
        self,
        *,
        rows: Array,
        weights: Array,
        heights: Array,
        prior: tuple[Array, Array],
        believed: Array,
        is_first: bool,
    ) -> None:
        """Fit `rows` (trials, 4: one, height, last gain, next gain) under `weights` (heights, trials)."""
        mean, precision = prior
        moments = (weights @ (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), 16)).reshape(-1, 4, 4)
        # Heights are counted from that of the fit, so that its first coefficient is the gain there.
        shift = np.tile(np.eye(4), (len(heights), 1, 1))
        shift[:, 1, 0] = -heights
        moments = shift @ moments @ shift.transpose(0, 2, 1)
        diagonal = precision[:, :, None] * np.eye(3)
        self.covariance = np.linalg.inv(diagonal + moments[:, :3, :3])
        known = precision * mean + moments[:, :3, 3]
        self.coefficients = (self.covariance @ known[:, :, None])[:, :, 0]
        error = np.concatenate([-self.coefficients, np.ones((len(heights), 1))], axis=1)
        squares = np.einsum("mi,mij,mj->m", error, moments, error)
        squares += (precision * (self.coefficients - mean) ** 2).sum(axis=1)
        self.freedom = _NOISE_WEIGHT + weights.sum(axis=1)
        self.residual = np.maximum((_NOISE_WEIGHT * believed + squares) / self.freedom, 1e-12)
        self.is_first = is_first

    def gain(self, last: Array) -> Array:
        """Return the expected gains of curves at the heights of the fits, whose last gains were `last`."""
        return np.asarray(self.coefficients[:, 0] + self.coefficients[:, 2] * last)

    def propagate(self, deviation: Array, last: Array) -> Array:
        """Carry the standard deviations of (height, last gain), (curves, 2), over the gains.

        What a curve gains beyond its expectation at one rung it may gain at the next too: a slow starter remains one.
        So deviations are added as if all were one surprise, and not their squares as if they were independent.
        """
        _, pull, persistence = self.coefficients.T
        at = np.stack([np.ones_like(last), np.zeros_like(last), last], axis=1)
        unit = np.ones_like(last) if self.is_first else np.abs(last) + _FLOOR
        doubt = np.einsum("mi,mij,mj->m", at, self.covariance, at)
        height, gain = deviation.T
        new = np.sqrt(self.residual * (unit**2 + doubt + gain**2))
        gain = np.maximum(pull * height + persistence * gain, 0.0) + new
        return np.stack([height + gain, gain], axis=1)


class _Chain:
    """How far the predictions of some curves have come."""

    def __init__(self, seen: Array, at: Indices) -> None:
        places = np.arange(len(seen))
        self._at = at
        self.height = seen[places, at]
        gain = np.where(at > 0, self.height - seen[places, np.maximum(at - 1, 0)], 0.0)
        self.gain = np.where(np.isnan(gain), 0.0, gain)
        self.freedom = np.full(len(seen), math.inf)
        self.deviation = np.zeros((len(seen), 2))

    def advance(self, fit: _Fits, place: int) -> None:
        """Carry the curves that have come to rung `place` on to the next."""
        on = place >= self._at
        self.freedom[on] = np.minimum(self.freedom, fit.freedom)[on]
        self.deviation[on] = fit.propagate(self.deviation, self.gain)[on]
        self.gain[on] = fit.gain(self.gain)[on]
        self.height[on] += self.gain[on]


def _read(curves: Sequence[Curve], places: Sequence[int]) -> Array:
    """Return the first value at or after each rung and before the next, (curves, rungs); gaps are interpolated."""
    table = np.full((len(curves), places[-1] + 1), math.nan)
    for row, curve in zip(table, curves, strict=True):
        row[list(curve)] = list(curve.values())
    found = np.full((len(curves), len(places)), math.nan)
    for place, (start, stop) in enumerate(pairwise((*places, places[-1] + 1))):
        between = table[:, start:stop]
        first = np.argmax(~np.isnan(between), axis=1)
        found[:, place] = between[np.arange(len(curves)), first]
    known = ~np.isnan(found)
    for row, there in zip(found, known, strict=True):
        at = np.flatnonzero(there)
        if len(at) and len(at) <= at[-1] - at[0]:
            seen = slice(at[0], at[-1] + 1)
            row[seen] = np.interp(np.log(places[seen]), np.log(places)[at], row[at])
    return found


def _similarity(here: Array, heights: Array) -> Array:
    """Weigh trials at heights `here` for each of `heights`, (heights, trials)."""
    width = float(np.std(here)) if len(here) > _UNWEIGHTED_TRIALS else 0.0
    if width <= 0:
        return np.ones((len(heights), len(here)))
    return np.asarray(np.exp(-0.5 * ((here[None] - heights[:, None]) / width) ** 2))


def _scale(values: Array) -> tuple[float, float]:
    """Return the median and a robust standard deviation of all values seen."""
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return 0.0, 1.0
    low, middle, high = np.percentile(known, [10, 50, 90])
    return float(middle), float(high - low) / 2.56 or float(np.std(known)) or 1.0
