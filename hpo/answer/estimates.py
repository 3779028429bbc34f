"""What is believed of the configurations of a study in one metric, before any of them is chosen.

A value of one training errs in three ways. One epoch is noisy: the whole curve says where it ends
(`hpo.stopping.curve_model`). Another seed would have ended elsewhere: trials of the same configuration show how far,
and where there are few of them, seeds are believed to differ as much as epochs do. And a share of n validation clips is
not the share of all clips: this error is binomial, and training again does not lessen it. Part of it is common to all
configurations, since they are scored on the same clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ..arrays import Array, Indices
from ..results.outcome import final_metrics, metric_curve, metric_sign
from ..spec import StudySpec, VideoTask
from ..stopping.clip_count import clip_count, sampling_variance
from ..stopping.ends import is_complete, predicted_ends
from ..trial import TrialRecord
from .seeds import between_seeds

CLIPS_METRIC: Final = "val_clips"
"""The metric in which a worker reports how many clips are behind the shares of the validation."""
SEEDS_OVER_EPOCHS: Final = 0.8
"""Standard deviation between trainings of a configuration over that between its epochs, where nothing is known."""
_UNKNOWN_SEED_SD: Final = 0.03
"""Of a share, where curves do not say how noisy one epoch is."""
_PRIOR_FREEDOM: Final = 4.0
"""The belief about the seeds counts as this many degrees of freedom; one that the spec states as many more."""
_STATED_FREEDOM: Final = 40.0
_DIVERGED: Final = 20.0
"""A loss has diverged so many times as far beyond the median as the best tenth is before it."""
SHARED_ERROR: Final = 0.3
"""Share of the binomial variance that all configurations have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """One metric of the configurations, (configurations,), turned so that more is better."""

    observed: Array
    """Mean of the last values of its trials."""
    means: Array
    """Believed mean of the ends of its trainings."""
    variances: Array
    """Of the mean around what other trainings would give."""
    sampling: Array
    """Variance of the share of the validation clips around that of all clips. 0 if no clips are known, and where every
    trial draws its own: then it is in `variances`."""
    trials: Array
    """Believed end of every trial, (trials,)."""
    seed_sd: float

    def of(self, places: Sequence[int]) -> Estimates:
        """Return those of some configurations, in this order."""
        kept = {name: getattr(self, name)[list(places)] for name in ("observed", "means", "variances", "sampling")}
        return replace(self, **kept)

    @property
    def of_differences(self) -> Array:
        """The variances that count where configurations are compared: without the error that they share."""
        return self.variances + (1 - SHARED_ERROR) * self.sampling

    @property
    def shared(self) -> Array:
        """The variances of the error that configurations share."""
        return SHARED_ERROR * self.sampling


def estimated(
    spec: StudySpec, records: Sequence[TrialRecord], owners: Indices, name: str, *, clips: int | None
) -> Estimates:
    """Return what is believed of a metric.

    Args:
        records: trials with a finite last value of the metric.
        owners: the configuration of each of them, counted from 0 without gaps.
        clips: number of validation clips; None if it is unknown, or the metric is not a share of them.
    """
    sign = metric_sign(spec, name) or 1.0
    lasts = np.array([sign * final_metrics(record)[name] for record in records])
    ends, variances, noise_sd = _ends(spec, records, name, lasts)
    sampling = 0.0 * ends if clips is None else np.array([sampling_variance(abs(end), clips) for end in ends])
    if has_own_clips(spec):
        # The clips of a trial are one more thing that another training draws anew.
        variances, sampling = variances + sampling, 0.0 * sampling
    prior_sd, freedom = _prior(spec, name, noise_sd)
    common = np.bincount(owners, sampling) / np.bincount(owners)
    seed_variance = between_seeds(
        ends, variances, owners, sampling=(1 - SHARED_ERROR) * common, prior=prior_sd**2, freedom=freedom
    )
    weights = 1.0 / (variances + seed_variance + 1e-300)
    totals = np.bincount(owners, weights)
    means = np.asarray(np.bincount(owners, weights / totals[owners] * ends), dtype=np.float64)
    return Estimates(
        observed=np.bincount(owners, lasts) / np.bincount(owners),
        means=means,
        variances=1.0 / totals,
        sampling=common,
        trials=ends,
        seed_sd=float(np.sqrt(seed_variance)),
    )


def clips_of(spec: StudySpec, records: Sequence[TrialRecord]) -> int | None:
    """Return how many validation clips are behind the shares of a study: as reported, else as the values show."""
    reported = [final_metrics(record).get(CLIPS_METRIC) for record in records]
    known = [round(count) for count in reported if count]
    if known:
        return min(known)
    name = spec.objectives[0].metric
    if not is_share(spec, name):
        return None
    return clip_count([value for record in records for value in metric_curve(record.curve, name).values()])


def has_own_clips(spec: StudySpec) -> bool:
    """Return whether every trial of a study validates on clips that it draws itself."""
    return isinstance(spec.task, VideoTask) and spec.task.dataset.split_seed == "trial"


def is_share(spec: StudySpec, name: str) -> bool:
    """Return whether a metric is a share of validation clips."""
    metric = spec.task.reported_metrics.get(name)
    return metric is not None and metric.is_share and name.startswith("val_")


def _ends(
    spec: StudySpec, records: Sequence[TrialRecord], name: str, lasts: Array
) -> tuple[Array, Array, float | None]:
    """Return the believed ends of trials, their variances, and the noise of one epoch; None if no curve shows it."""
    sign, epochs = metric_sign(spec, name), spec.task.epochs
    least = -np.inf if sign is None or is_share(spec, name) else _least_ordinary(lasts)
    curves = [
        # What a model of curves learned from a diverged loss would be wrong for all others.
        _curve(record, name, sign or 1.0, float(last), epochs) if last >= least else {}
        for record, last in zip(records, lasts, strict=True)
    ]
    complete = [is_complete(record.state, _step(record), epochs) for record in records]
    found = predicted_ends(curves, complete, epochs, improves=sign is not None, on_these_clips=True)
    means, variances = lasts.copy(), np.zeros(len(lasts))
    for place, end in found.by_place.items():
        means[place], variances[place] = end.mean, end.deviation**2
    return means, variances, found.noise_sd if found.by_place else None


def _least_ordinary(lasts: Array) -> float:
    """Return the value below which a trial has diverged, by the distance from the middle of the trials to the best."""
    middle, high = np.percentile(lasts, [50, 90])
    return float(middle - _DIVERGED * (high - middle)) if high > middle else -np.inf


def _curve(record: TrialRecord, name: str, sign: float, last: float, epochs: int) -> Mapping[int, float]:
    """Return the curve of a metric that ends with the last value of the trial; empty if it reported none before."""
    step = min(_step(record), epochs)
    curve = {at: value for at, value in metric_curve(record.curve, name, sign).items() if 0 < at <= epochs}
    if not curve:
        return {}
    end = epochs if is_complete(record.state, step, epochs) else max(step, 1)
    return {**{at: value for at, value in curve.items() if at < min(step, end)}, end: last}


def _step(record: TrialRecord) -> int:
    return record.last_step or record.epochs_done


def _prior(spec: StudySpec, name: str, noise_sd: float | None) -> tuple[float, float]:
    """Return the believed standard deviation between seeds, and its degrees of freedom."""
    stated = next((objective.noise_sd for objective in spec.objectives if objective.metric == name), None)
    if stated is not None:
        return stated, _STATED_FREEDOM
    if noise_sd is not None:
        return SEEDS_OVER_EPOCHS * noise_sd, _PRIOR_FREEDOM
    return _UNKNOWN_SEED_SD if is_share(spec, name) else 0.0, _PRIOR_FREEDOM
