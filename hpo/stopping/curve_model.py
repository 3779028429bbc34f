"""Predict where a learning curve ends, from the partial curves of a study.

The model is a filter over curves in logarithmic time (`curve_filter`) whose hyperparameters are averaged over
(`hyper_draws`): noise of the observations, spread of the first epochs, decay of slopes and how it differs between
trials. In the later half of training the noise is measured where it shows by itself (`scatter`). Trials that were
stopped, or still run, teach the early epochs, those that were completed all of them. That the late epochs see only the
trials that were let through does no harm, since each gain is conditional on what the rule had seen. The end of a
completed trial is a belief too: its last value is as noisy as the others.

The ingredients are known: regressions over the trials of a study (Baker et al., 2018, Accelerating neural architecture
search using performance prediction), a joint Bayesian belief about ends (Swersky et al., 2014, Freeze-thaw Bayesian
optimization). The filter with deviations in proportion to the slope is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ..arrays import Array
from .clip_count import clip_count, sampling_variance
from .curve_filter import CurveFilter, Dynamics, Readings
from .hyper_draws import weighted_draws
from .scatter import LateNoise, is_late

Curve = Mapping[int, float]
"""Step (epochs done, from 1) to a finite value."""

_SPACING: Final = 1.5
"""Ratio of neighbouring rungs."""
_BIN_SPACING: Final = 1.35
"""Ratio of neighbouring bins of epochs, within which a curve is averaged."""
_PRIORS: Final[Mapping[str, tuple[float, float]]] = {
    "noise": (-3.0, 2.0),
    "first_level": (-1.2, 1.2),
    "first_slope": (-0.4, 1.0),
    "decay": (-0.3, 0.5),
    "drift": (-1.0, 0.9),
    "takeoff": (-2.9, 0.7),
    "variation": (-0.9, 0.5),
    "forgetting": (0.0, 1.0),
    "roughness": (-4.0, 1.3),
}
"""Beliefs (mean, sd) about the logarithms of the hyperparameters."""
_LARGEST_VALUE: Final = 1e100
"""Diverged losses beyond this count as this: the square of their spread would be no number."""
_FURTHEST: Final = 1e6
"""Values further from the centre than this many spreads count as this far."""
_HYPER_TRIALS: Final = 100
"""Hyperparameters are chosen from at most this many trials; the rest is learned from all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A Student-t belief about the last value of a curve, without the noise of its observation."""

    mean: float
    sd: float
    """Scale of the distribution."""
    freedom: float
    """Degrees of freedom, above 4; few when hyperparameters that fit the curves disagree about the end."""

    @property
    def deviation(self) -> float:
        """The standard deviation of the distribution."""
        return self.sd * math.sqrt(self.freedom / (self.freedom - 2))

    def probability_above(self, value: float) -> float:
        """Return the probability that the curve ends above `value`."""
        from scipy.special import stdtr  # only where a rule of this kind is in use

        return float(stdtr(self.freedom, (self.mean - value) / self.sd))

    def probability_beyond(self, other: Prediction) -> float:
        """Return the probability, nearly, that the curve ends above another whose end is uncertain too."""
        both = Prediction(mean=self.mean, sd=math.hypot(self.sd, other.sd), freedom=min(self.freedom, other.freedom))
        return both.probability_above(other.mean)


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

    def __init__(
        self,
        curves: Sequence[Curve],
        places: Sequence[int],
        *,
        improves: bool = True,
        on_these_clips: bool = False,
    ) -> None:
        """Learn from `curves`, complete or not; `places` are the rungs, the last of which is the last epoch.

        `improves` says whether training is believed to raise the metric. The end of an accuracy is meant over all
        clips there are, of which those of the validation are a sample; with `on_these_clips` over them alone.
        """
        self._first = places[0]
        self._bins = _Bins(places[-1])
        self._improves = improves
        self._centre, self._spread = _scale(curves)
        table = self._table([curve for curve in curves if curve])
        readings = self._bins.read(table)
        sample = readings.take(np.arange(len(readings))[:: -(-len(readings) // _HYPER_TRIALS) or 1])
        points, self._weights = weighted_draws(lambda z: self._filter(z).learn(sample)[0], len(_PRIORS))
        self._chosen = self._filter(points)
        self._noise = float(self._weights @ self._chosen.noise_variance)
        self._late_noise = LateNoise.learn(table, self._noise)
        self._clips = None if on_these_clips else clip_count([value for curve in curves for value in curve.values()])
        _, self._trends = self._chosen.learn(readings)

    @property
    def noise_sd(self) -> float:
        """Standard deviation of the value of one epoch around the curve, early ones included."""
        return self._spread * math.sqrt(self._noise)

    def predict(self, curve: Curve) -> Prediction:
        """Return the belief about the last value of `curve`, which must have reached the first of the places."""
        (found,) = self.predict_all([curve])
        return found

    def predict_all(self, curves: Sequence[Curve]) -> list[Prediction]:
        """Return the beliefs about the last values of `curves`, all of which must have reached the first place.

        Raises:
            ValueError: one of them has not.
        """
        if any(max(curve, default=0) < self._first for curve in curves):
            raise ValueError("a curve has not reached the first rung")
        table = self._table(curves)
        late = self._late_noise.variances(table)
        readings = self._bins.read(table)
        noise = np.where(self._bins.is_late, late[:, None], math.nan)
        means, variances = self._chosen.ends(replace(readings, noise=noise), self._trends)
        scattered = np.where(readings.counts[:, self._bins.is_late].any(axis=1), late, self._noise)
        return [self._mixed(*moments) for moments in zip(means.T, variances.T, scattered, strict=True)]

    def _mixed(self, means: Array, variances: Array, scattered: float) -> Prediction:
        """Return the Student-t distribution with the mean, variance and kurtosis of the weighted normal ones."""
        mean = float(self._weights @ means)
        apart = (means - mean) ** 2
        variance = max(float(self._weights @ (variances + apart)), 1e-20)
        fourth = float(self._weights @ (3 * variances**2 + 6 * variances * apart + apart**2))
        freedom = 4 + 6 / max(fourth / variance**2 - 3, 1e-5)
        mean = self._centre + self._spread * mean
        variance = self._spread**2 * variance + self._sampling_variance(mean, self._spread**2 * scattered)
        return Prediction(mean=mean, sd=math.sqrt(variance * (freedom - 2) / freedom), freedom=freedom)

    def _sampling_variance(self, mean: float, scattered: float) -> float:
        """Return the part of the error of the clips that epochs share, without what is `scattered` between them."""
        return 0.0 if self._clips is None else max(sampling_variance(abs(mean), self._clips) - scattered, 0.0)

    def _table(self, curves: Sequence[Curve]) -> Array:
        """Return curves as rows, (trials, epochs), from the centre and in units of the spread; NaN for no value."""
        table = np.full((len(curves), self._bins.epochs + 1), math.nan)
        for row, curve in zip(table, curves, strict=True):
            row[list(curve)] = list(curve.values())
        values = (np.clip(table[:, 1:], -_LARGEST_VALUE, _LARGEST_VALUE) - self._centre) / self._spread
        return np.asarray(np.clip(values, -_FURTHEST, _FURTHEST))

    def _filter(self, points: Array) -> CurveFilter:
        logs = {name: mean + sd * points[:, [place]] for place, (name, (mean, sd)) in enumerate(_PRIORS.items())}
        dynamics = Dynamics(**{name: np.exp(values) for name, values in logs.items()})
        return CurveFilter(dynamics, self._bins.times, improves=self._improves)


class _Bins:
    """Bins of epochs, of nearly equal width in logarithmic time; the first and the last epoch are alone in theirs."""

    def __init__(self, epochs: int) -> None:
        starts = [1]
        while starts[-1] < epochs:
            starts.append(min(epochs, max(starts[-1] + 1, round(starts[-1] * _BIN_SPACING))))
        self.epochs: Final = epochs
        self._times = np.log(np.arange(1, epochs + 1))
        place = np.searchsorted(starts, np.arange(1, epochs + 1), side="right") - 1
        self._member = np.eye(len(starts))[place]
        self.times: Array = self._times @ self._member / self._member.sum(axis=0)
        self.is_late: Array = is_late(np.exp(self.times), epochs)

    def read(self, table: Array) -> Readings:
        """Return curves, (trials, epochs), averaged within the bins."""
        known = ~np.isnan(table)
        counts = known @ self._member
        some = np.maximum(counts, 1.0)
        times = (known * self._times) @ self._member / some
        return Readings(
            values=np.where(known, table, 0.0) @ self._member / some,
            offsets=np.where(counts > 0, times - self.times, 0.0),
            counts=counts,
        )


def _scale(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the median and a robust standard deviation of all values seen."""
    known = np.clip([value for curve in curves for value in curve.values()], -_LARGEST_VALUE, _LARGEST_VALUE)
    if len(known) < 2:
        return (float(known[0]) if len(known) else 0.0), 1.0
    low, middle, high = np.percentile(known, [10, 50, 90])
    return float(middle), float(high - low) / 2.56 or float(np.std(known)) or 1.0
