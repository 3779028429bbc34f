"""A Kalman filter over the learning curves of a study: where each curve is, how fast it rises, and how far it may end.

Time is the logarithm of the epoch, cut into bins of nearly equal width. The state of a curve at a bin is its level, its
slope and what the slope gains beyond that of the average curve. From bin to bin the slope decays, and a deviation that
is proportional to the slope itself is added: a curve that hardly rises has little left to gain, one that still rises
steeply may end anywhere. The deviation is correlated over time, since a trial that starts slowly usually stays slow.
Moments are carried exactly; after each observation the belief is taken as normal.

What all curves share is learned bin by bin: how the next slope depends on slope and level is a Bayesian linear
regression over all trials that were seen at both bins, with the states of the filter as its inputs. Noise of the
observations therefore adds in variance and is averaged over the epochs of a trial. The same pass yields the evidence
for the hyperparameters.

Arrays have the axes (draw of the hyperparameters, trial) last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..arrays import Array, Indices

_LEVEL_SD: Final = 3.0
"""Belief about the mean level after the first epoch, in spreads of the study's values."""
_FIRST_SLOPE: Final = (0.3, 1.0)
"""Belief (mean, sd) about the mean slope that follows; the mean is 0 for a metric without direction."""
_FIRST_PULL_SD: Final = 0.5
"""Belief about the influence of the first level on that slope."""
_DRIFT: Final = 0.15
"""Belief about what is added to every slope from one bin to the next: its mean, half of it in the later bins."""
_DRIFT_SD: Final = 0.3
_DECAY_SD: Final = 0.2
"""Belief about the decay of slopes within one unit of time, around the one that is common to all bins."""
_PULL_SD: Final = 0.1
"""Belief about the influence of the level on the next slope, per unit of time."""
_RESOLUTION: Final = 0.01
"""Differences below this share of the spread are not taken as evidence of anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamics:
    """Draws of the hyperparameters, each (draws, 1), in spreads of the study's values and units of log epochs."""

    noise: Array
    """Standard deviation of one observation."""
    first_level: Array
    """Spread of the levels after the first epoch."""
    first_slope: Array
    """Spread of the slopes that follow."""
    decay: Array
    """Rate at which slopes decay."""
    takeoff: Array
    """Spread of what is added to any slope per unit of time, however flat the curve."""
    variation: Array
    """Spread of the rate of decay between trials."""
    forgetting: Array
    """Rate at which a trial forgets its own rate of decay."""
    roughness: Array
    """Spread of jumps of the level per unit of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Curves averaged within the bins, (trials, bins)."""

    values: Array
    """Mean of the values seen in a bin; 0 where there is none."""
    offsets: Array
    """Mean time of these values, counted from the time of the bin."""
    counts: Array

    def __len__(self) -> int:
        """Return the number of trials."""
        return len(self.values)

    def take(self, places: Indices) -> Readings:
        """Return the trials with these indices."""
        return Readings(values=self.values[places], offsets=self.offsets[places], counts=self.counts[places])


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """What all curves share between two bins: a belief about the coefficients of the regression."""

    mean: Array
    """(draws, coefficients)"""
    covariance: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Belief:
    """A normal belief about the states of trials."""

    mean: Array
    """(3, draws, trials)"""
    covariance: Array
    """(3, 3, draws, trials)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """The states at the next bin, but for the part that the regression adds."""

    base: _Belief
    features: Array
    """Inputs of the regression, (draws, trials, coefficients)."""
    load: Array
    """How its output enters level, slope and deviation."""
    prior: Trend
    """Its prior; the covariance is a diagonal, (draws, coefficients)."""


class CurveFilter:
    """The filter for given hyperparameters. `times` are the times of the bins."""

    def __init__(self, dynamics: Dynamics, times: Array, *, improves: bool) -> None:
        """Take `improves` as whether training is believed to raise the metric."""
        self._dynamics = dynamics
        self._times = times
        self._improves = float(improves)

    def learn(self, readings: Readings) -> tuple[Array, list[Trend]]:
        """Return the log evidence, (draws,), and what the trials share between each bin and the next."""
        evidence = np.zeros(len(self._dynamics.noise))
        trends = []
        belief = self._start(len(readings))
        for place in range(len(self._times)):
            step = self._step(place, belief)
            trend, found = self._regress(place, step, readings)
            evidence += found
            trends.append(trend)
            belief = self._observe(place, self._apply(place, step, trend, is_certain=True), readings)
        return evidence, trends

    def ends(self, readings: Readings, trends: Sequence[Trend]) -> tuple[Array, Array]:
        """Return mean and variance of the level at the last bin, (draws, trials)."""
        belief = self._start(len(readings))
        for place, trend in enumerate(trends):
            step = self._step(place, belief)
            belief = self._observe(place, self._apply(place, step, trend, is_certain=False), readings)
        return belief.mean[0], belief.covariance[0, 0]

    def _start(self, trials: int) -> _Belief:
        covariance = np.zeros((3, 3, len(self._dynamics.noise), trials))
        covariance[0, 0] = self._dynamics.first_level**2
        return _Belief(mean=np.zeros(covariance.shape[1:]), covariance=covariance)

    def _step(self, place: int, belief: _Belief) -> _Step:
        """Carry the beliefs to the bin `place`."""
        draws, trials = belief.mean.shape[1:]
        if place == 0:
            return _Step(
                base=belief,
                features=np.ones((draws, trials, 1)),
                load=np.array([1.0, 0.0, 0.0]),
                prior=Trend(mean=np.zeros((draws, 1)), covariance=np.full((draws, 1), _LEVEL_SD**2)),
            )
        width = self._times[place] - self._times[place - 1]
        step = self._transition(place, width)
        base = np.stack(
            [belief.mean[0] + width / 2 * belief.mean[1], np.zeros((draws, trials)), np.zeros((draws, trials))]
        )
        base += np.stack([width / 2 * step[1, 2], step[1, 2], step[2, 2]]) * belief.mean[2]
        load = np.array([width / 2, 1.0, 0.0])
        covariance = _transformed(belief.covariance, step)
        dynamics = self._dynamics
        surprise = dynamics.first_slope**2 if place == 1 else width * dynamics.takeoff**2
        covariance += np.outer(load, load)[:, :, None, None] * surprise
        covariance[0, 0] += width * dynamics.roughness**2
        return _Step(
            base=_Belief(mean=base, covariance=covariance),
            features=np.stack([np.ones((draws, trials)), belief.mean[1], belief.mean[0]], axis=2),
            load=load,
            prior=self._prior(place, width),
        )

    def _transition(self, place: int, width: float) -> Array:
        """Return the matrix that carries a state over `width`, by the prior mean of the decay, (3, 3, draws, 1)."""
        dynamics = self._dynamics
        step = np.zeros((3, 3, *dynamics.decay.shape))
        if place > 1:  # before there is no slope
            kept = np.exp(-dynamics.decay * width)
            step[1, 1], step[1, 2] = kept, width
            step[2, 2] = kept * np.exp(-dynamics.forgetting * width)
        step[0] = width / 2 * step[1]
        step[0, 0] += 1.0
        step[0, 1] += width / 2
        return step

    def _prior(self, place: int, width: float) -> Trend:
        draws = len(self._dynamics.decay)
        mean = np.zeros((draws, 3))
        if place == 1:
            mean[:, 0] = _FIRST_SLOPE[0] * self._improves
            variance = np.array([_FIRST_SLOPE[1], 1e-3, _FIRST_PULL_SD]) ** 2
        else:
            mean[:, 0] = _DRIFT * self._improves * (1.0 if place < len(self._times) / 2 else 0.5)
            mean[:, 1] = np.exp(-self._dynamics.decay[:, 0] * width)
            variance = np.array([_DRIFT_SD, _DECAY_SD, _PULL_SD]) ** 2 * width
        return Trend(mean=mean, covariance=np.tile(variance, (draws, 1)))

    def _regress(self, place: int, step: _Step, readings: Readings) -> tuple[Trend, Array]:
        """Return the belief about the coefficients after the trials seen in bin `place`, and the log evidence."""
        seen = np.flatnonzero(readings.counts[:, place])
        offset = readings.offsets[seen, place]
        base = step.base.mean[:, :, seen]
        features = step.features[:, seen] * (step.load[0] + step.load[1] * offset)[:, None]
        prior = step.prior
        residual = readings.values[seen, place] - base[0] - offset * base[1] - _along(features, prior.mean)
        variance = self._variance(place, step.base.covariance[:, :, :, seen], readings, seen)
        weighted = features / variance[:, :, None]
        precision = weighted.transpose(0, 2, 1) @ features
        precision += np.eye(precision.shape[1]) / prior.covariance[:, None]
        covariance = np.linalg.inv(precision)
        moment = (weighted * residual[:, :, None]).sum(axis=1)
        change = (covariance @ moment[:, :, None])[:, :, 0]
        evidence = (residual**2 / variance + np.log(variance)).sum(axis=1) - (moment * change).sum(axis=1)
        evidence += np.linalg.slogdet(precision)[1] + np.log(prior.covariance).sum(axis=1)
        return Trend(mean=prior.mean + change, covariance=covariance), -0.5 * evidence

    def _apply(self, place: int, step: _Step, trend: Trend, *, is_certain: bool) -> _Belief:
        """Add the output of the regression, with the doubt about its coefficients unless `is_certain`."""
        mean = step.base.mean + step.load[:, None, None] * _along(step.features, trend.mean)
        covariance = step.base.covariance.copy()
        if not is_certain:
            doubt = ((step.features @ trend.covariance) * step.features).sum(axis=2)
            covariance += np.outer(step.load, step.load)[:, :, None, None] * doubt
        if place:
            # The deviation is as large as the slope lets it be; what it has forgotten is drawn anew.
            full = self._dynamics.variation**2 * (mean[1] ** 2 + covariance[1, 1])
            width = self._times[place] - self._times[place - 1]
            anew = -np.expm1(-2 * self._dynamics.forgetting * width) * full
            covariance[2, 2] += np.maximum(full - covariance[2, 2], anew)
        return _Belief(mean=mean, covariance=covariance)

    def _observe(self, place: int, belief: _Belief, readings: Readings) -> _Belief:
        """Update the beliefs by the values seen in bin `place`."""
        seen = np.flatnonzero(readings.counts[:, place])
        offset = readings.offsets[seen, place]
        mean, covariance = belief.mean[:, :, seen], belief.covariance[:, :, :, seen]
        variance = self._variance(place, covariance, readings, seen)
        gain = (covariance[:, 0] + offset * covariance[:, 1]) / variance
        belief.mean[:, :, seen] += gain * (readings.values[seen, place] - mean[0] - offset * mean[1])
        belief.covariance[:, :, :, seen] -= gain[:, None] * gain[None] * variance
        return belief

    def _variance(self, place: int, covariance: Array, readings: Readings, seen: Indices) -> Array:
        """Return the variance of what is observed in bin `place`, (draws, trials)."""
        offset = readings.offsets[seen, place]
        level = covariance[0, 0] + 2 * offset * covariance[0, 1] + offset**2 * covariance[1, 1]
        return np.asarray(level + self._dynamics.noise**2 / readings.counts[seen, place] + _RESOLUTION**2)


def _along(features: Array, coefficients: Array) -> Array:
    """Return the output of a regression, (draws, trials)."""
    return np.asarray((features @ coefficients[:, :, None])[:, :, 0])


def _transformed(covariance: Array, step: Array) -> Array:
    """Return the covariance of states that a matrix (3, 3, draws, 1) was applied to."""
    half = sum(step[:, place][:, None] * covariance[place] for place in range(3))
    return np.asarray(sum(half[:, place][:, None] * step[:, place] for place in range(3)))
