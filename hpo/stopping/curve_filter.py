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
_DRIFT_MEAN: Final = 0.35
"""Belief about the mean of what is added to every slope, in units of `drift`; half of it in the later bins."""
_DECAY_SD: Final = 0.3
"""Belief about the decay of slopes within one unit of time, around the one that is common to all bins."""
_PULL_SD: Final = 0.1
"""Belief about the influence of the level on the next slope, per unit of time."""
_TRUST: Final = 0.4
"""Power of the likelihood in all that is learned. No curve is quite as the model says, and what fits neighbouring
epochs best need not predict best over many."""
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
    drift: Array
    """Size of what is added to every slope between two bins, per unit of time: when do most curves begin to rise?"""
    takeoff: Array
    """Spread of what is added to the slope of one trial per unit of time, however flat the curve."""
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
    noise: Array | None = None
    """Known variance of one value, NaN where it is that of the draws; None where it is so everywhere."""

    def __len__(self) -> int:
        """Return the number of trials."""
        return len(self.values)

    def take(self, places: Indices) -> Readings:
        """Return the trials with these indices."""
        return Readings(
            values=self.values[places],
            offsets=self.offsets[places],
            counts=self.counts[places],
            noise=None if self.noise is None else self.noise[places],
        )

    def longest_first(self) -> tuple[Readings, Indices]:
        """Return the trials in the order of their last bins, and how many have come to each bin."""
        bins = np.arange(self.counts.shape[1])
        last = np.where(self.counts > 0, bins, -1).max(axis=1, initial=-1)
        order = np.argsort(-last, kind="stable")
        return self.take(order), np.count_nonzero(last[:, None] >= bins, axis=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """What all curves share between two bins: a belief about the coefficients of the regression."""

    mean: Array
    """(draws, coefficients)"""
    covariance: Array
    """(draws, coefficients, coefficients)"""


_ROWS: Final = np.array([0, 0, 0, 1, 1, 2])
_COLUMNS: Final = np.array([0, 1, 2, 1, 2, 2])
"""The places of the six entries of a symmetric matrix that are kept."""


@dataclass(slots=True, kw_only=True)
class _Belief:
    """A normal belief about level, slope and deviation of trials."""

    mean: Array
    """(3, draws, trials)"""
    covariance: Array
    """(6, draws, trials): level with all, slope with slope and deviation, deviation with itself."""
    features: Array
    """Inputs of the regression whose output is still to be added, (draws, trials, coefficients)."""


class CurveFilter:
    """The filter for given hyperparameters. `times` are the times of the bins."""

    def __init__(self, dynamics: Dynamics, times: Array, *, improves: bool) -> None:
        """Take `improves` as whether training is believed to raise the metric."""
        self._dynamics = dynamics
        self._widths = np.diff(times, prepend=times[0])
        self._improves = float(improves)

    @property
    def noise_variance(self) -> Array:
        """The variance of one observation, (draws,)."""
        return np.asarray(self._dynamics.noise[:, 0] ** 2)

    def learn(self, readings: Readings) -> tuple[Array, list[Trend]]:
        """Return the log evidence, (draws,), and what the trials share between each bin and the next."""
        readings, arrived = readings.longest_first()
        evidence = np.zeros(len(self._dynamics.noise))
        trends = []
        belief = self._start(len(readings))
        for place, count in enumerate(arrived):
            belief = self._carried(place, belief, int(count))
            trend, found = self._regress(place, belief, readings)
            evidence += found
            trends.append(trend)
            self._add(place, belief, trend, is_certain=True)
            self._observe(place, belief, readings)
        return evidence, trends

    def ends(self, readings: Readings, trends: Sequence[Trend]) -> tuple[Array, Array]:
        """Return mean and variance of the level at the last bin, (draws, trials)."""
        belief = self._start(len(readings))
        for place, trend in enumerate(trends):
            belief = self._carried(place, belief, len(readings))
            self._add(place, belief, trend, is_certain=False)
            self._observe(place, belief, readings)
        return belief.mean[0], belief.covariance[0]

    def _start(self, trials: int) -> _Belief:
        draws = len(self._dynamics.noise)
        return _Belief(
            mean=np.zeros((3, draws, trials)),
            covariance=np.zeros((6, draws, trials)),
            features=np.ones((draws, trials, 1)),
        )

    def _carried(self, place: int, belief: _Belief, trials: int) -> _Belief:
        """Return the beliefs about the first `trials` at the bin `place`, without the output of the regression."""
        dynamics, width = self._dynamics, self._widths[place]
        level, slope, deviation = belief.mean[:, :, :trials]
        if place == 0:
            belief.covariance[0] = dynamics.first_level**2
            return _Belief(
                mean=belief.mean[:, :, :trials],
                covariance=belief.covariance[:, :, :trials],
                features=belief.features[:, :trials],
            )
        half = width / 2
        kept = np.exp(-dynamics.decay * width) if place > 1 else np.zeros_like(dynamics.decay)
        passed = kept * np.exp(-dynamics.forgetting * width)
        ll, ls, ld, ss, sd, dd = belief.covariance[:, :, :trials]
        # Slope: kept * slope + width * deviation + surprise; deviation: passed * deviation;
        # level: level + the mean of both slopes over the width. `with_*` are covariances with the new slope.
        surprise = dynamics.first_slope**2 if place == 1 else width * dynamics.takeoff**2
        with_level = kept * ls + width * ld
        with_slope = kept * ss + width * sd
        with_deviation = kept * sd + width * dd
        new_slope = kept * with_slope + width * with_deviation + surprise
        rough = width * dynamics.roughness**2
        covariance = np.stack(
            [
                ll + 2 * half * (ls + with_level) + half**2 * (ss + 2 * with_slope + new_slope) + rough,
                with_level + half * (with_slope + new_slope),
                passed * (ld + half * (sd + with_deviation)),
                new_slope,
                passed * with_deviation,
                passed**2 * dd,
            ]
        )
        risen = width * deviation
        mean = np.stack([level + half * (slope + risen), risen, passed * deviation])
        features = np.stack([np.ones_like(slope), slope, level], axis=2)
        return _Belief(mean=mean, covariance=covariance, features=features)

    def _load(self, place: int) -> tuple[float, float]:
        """Return how the output of the regression enters level and slope."""
        return (1.0, 0.0) if place == 0 else (self._widths[place] / 2, 1.0)

    def _prior(self, place: int) -> tuple[Array, Array]:
        """Return means and variances of the coefficients, (draws, coefficients)."""
        draws, width = len(self._dynamics.decay), self._widths[place]
        if place == 0:
            return np.zeros((draws, 1)), np.full((draws, 1), _LEVEL_SD**2)
        mean = np.zeros((draws, 3))
        if place == 1:
            mean[:, 0] = _FIRST_SLOPE[0] * self._improves
            return mean, np.tile(np.array([_FIRST_SLOPE[1], 1e-3, _FIRST_PULL_SD]) ** 2, (draws, 1))
        drift = self._dynamics.drift[:, 0]
        mean[:, 0] = _DRIFT_MEAN * self._improves * (1.0 if place < len(self._widths) / 2 else 0.5) * drift
        mean[:, 1] = np.exp(-self._dynamics.decay[:, 0] * width)
        variance = np.tile(np.array([0.0, _DECAY_SD, _PULL_SD]) ** 2 * width, (draws, 1))
        variance[:, 0] = drift**2 * width
        return mean, variance

    def _regress(self, place: int, belief: _Belief, readings: Readings) -> tuple[Trend, Array]:
        """Return the belief about the coefficients after the trials seen in bin `place`, and the log evidence."""
        trials = belief.mean.shape[2]
        offset, counts = readings.offsets[:trials, place], readings.counts[:trials, place]
        to_level, to_slope = self._load(place)
        features = belief.features * (to_level + to_slope * offset)[:, None]
        mean, variance = self._prior(place)
        expected = belief.mean[0] + offset * belief.mean[1] + _along(features, mean)
        residual = readings.values[:trials, place] - expected
        _, precision = self._seen(place, belief, readings)
        weighted = features * (_TRUST * precision)[:, :, None]
        matrix = weighted.transpose(0, 2, 1) @ features + np.eye(mean.shape[1]) / variance[:, None]
        covariance: Array = np.linalg.inv(matrix).astype(np.float64)
        moment = (weighted.transpose(0, 2, 1) @ residual[:, :, None])[:, :, 0]
        change = (covariance @ moment[:, :, None])[:, :, 0]
        logs = np.log(np.where(counts > 0, precision, 1.0))
        evidence = _TRUST * (residual**2 * precision - logs).sum(axis=1) - (moment * change).sum(axis=1)
        evidence += np.log(np.linalg.det(matrix)) + np.log(variance).sum(axis=1)
        return Trend(mean=mean + change, covariance=covariance), -0.5 * evidence

    def _add(self, place: int, belief: _Belief, trend: Trend, *, is_certain: bool) -> None:
        """Add the output of the regression, with the doubt about its coefficients unless `is_certain`."""
        to_level, to_slope = self._load(place)
        output = _along(belief.features, trend.mean)
        belief.mean[0] += to_level * output
        belief.mean[1] += to_slope * output
        if not is_certain:
            doubt = ((belief.features @ trend.covariance) * belief.features).sum(axis=2)
            belief.covariance[0] += to_level**2 * doubt
            belief.covariance[1] += to_level * to_slope * doubt
            belief.covariance[3] += to_slope**2 * doubt
        if place:
            # The deviation is as large as the slope lets it be; what it has forgotten is drawn anew.
            full = self._dynamics.variation**2 * (belief.mean[1] ** 2 + belief.covariance[3])
            anew = -np.expm1(-2 * self._dynamics.forgetting * self._widths[place]) * full
            belief.covariance[5] += np.maximum(full - belief.covariance[5], anew)

    def _observe(self, place: int, belief: _Belief, readings: Readings) -> None:
        """Update the beliefs by the values seen in bin `place`."""
        trials = belief.mean.shape[2]
        offset, values = readings.offsets[:trials, place], readings.values[:trials, place]
        shared, precision = self._seen(place, belief, readings)
        residual = values - belief.mean[0] - offset * belief.mean[1]
        belief.mean += shared * (precision * residual)
        belief.covariance -= shared[_ROWS] * shared[_COLUMNS] * precision

    def _seen(self, place: int, belief: _Belief, readings: Readings) -> tuple[Array, Array]:
        """Return covariances of the states with what is seen in bin `place`, and its precision, 0 where nothing is."""
        trials = belief.mean.shape[2]
        offset, counts = readings.offsets[:trials, place], readings.counts[:trials, place]
        shared = belief.covariance[[0, 1, 2]] + offset * belief.covariance[[1, 3, 4]]
        variance = shared[0] + offset * shared[1] + _RESOLUTION**2
        noise = self._dynamics.noise**2
        if readings.noise is not None:
            known = readings.noise[:trials, place]
            noise = np.where(np.isnan(known), noise, known)
        return shared, counts / (counts * variance + noise)


def _along(features: Array, coefficients: Array) -> Array:
    """Return the output of a regression, (draws, trials)."""
    return np.asarray((features @ coefficients[:, :, None])[:, :, 0])
