"""The models of a study: one process for each metric that is optimised or constrained.

Hyperparameters and transforms are not chosen anew after every observation, but at numbers of observations that grow by
about a twentieth (`schedule`). In between, those chosen from the earlier observations are used with all data. They are
a function of those observations, so a restart changes nothing; the caches in this module only save work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from scipy.special import log_ndtr

from ...arrays import Array, Indices
from ...results.outcome import gain
from ...spec import StudySpec
from .curves import Outcome
from .fit import Evidence, Fit, fit
from .gp import Hyperparameters, Process
from .kernels import DISTANCE_FROM_MIDDLE, Kernel, gaussian, matern
from .laplace import sample_around
from .outcome import Transform, constraint_transforms, log_jacobian, objective_transforms, worth_comparing
from .schedule import scheduled
from .slice_sampling import sample

_SPREAD_DOUBT = 16.0
"""The variance shown to people is raised by this over the number of outcomes, which do not determine their spread."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_MAX_FITTED_OBSERVATIONS = 200
"""Hyperparameters are chosen from at most this many observations; the posterior uses all."""
_CACHE_ENTRIES = 256
_CHAIN_BELOW_OBSERVATIONS = 30
"""With fewer observations hyperparameters are sampled by a Markov chain, with more around the most probable ones."""
_HYPERPARAMETER_SAMPLES = ((150, 1), (_CHAIN_BELOW_OBSERVATIONS, 4), (0, 8))
"""(least number of observations, samples of the hyperparameters); 1 means the most probable hyperparameters alone.

With one objective half of the samples use the Matern kernel and half the Gaussian, which a few dozen observations
cannot tell apart. With several objectives this was not measured, and all samples use the Matern kernel.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelled:
    """A Gaussian process of one metric, in targets (more is better), and its role: objective or constraint."""

    process: Process
    is_objective: bool
    threshold: float
    """The least target of a feasible outcome; minus infinity without a constraint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The model of one metric, with the transform back to its unit."""

    name: str
    sign: float
    transform: Transform
    modelled: Modelled

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of a trial's outcome at embedded points, in the metric's own unit.

        People compare a prediction with what one training brings, so the noise between trainings is part of it.
        """
        process = self.modelled.process
        mean, variance = process.marginal(points)
        return self.in_unit(mean, variance + process.noise)

    def in_unit(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation, in the metric's own unit, of predictions in that of the model.

        Targets are standardised by the spread of the observations, which a few do not determine: `_SPREAD_DOUBT`.
        """
        variance = variance * (1 + _SPREAD_DOUBT / self.modelled.process.observations)
        nodes, weights = np.polynomial.hermite_e.hermegauss(9)
        weights = weights / weights.sum()
        gains = self.transform.inverse(mean[:, None] + np.sqrt(variance)[:, None] * nodes)
        centre = gains @ weights
        spread = np.sqrt(np.maximum((gains - centre[:, None]) ** 2 @ weights, 0.0))
        return self.sign * centre, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The configurations with an outcome, and their outcomes."""

    points: Array
    """Embedded configurations."""
    columns: Indices
    outcomes: Sequence[Outcome]


def model(spec: StudySpec, data: Data, *, second_view: bool = False) -> list[Metric]:
    """Return the models of the objectives, then of the constraints, except those in the direction of an objective.

    With `second_view` objectives get the most probable transform of the other kind: the identity where a logarithm is
    the most probable, and a logarithm where the identity is.
    """
    wanted = {(objective.metric, gain(objective, 1.0)): True for objective in spec.objectives}
    for constraint in spec.constraints:
        wanted.setdefault((constraint.metric, 1.0 if constraint.relation == ">=" else -1.0), False)
    return [
        _metric(spec, data, name, sign, is_objective=is_objective, second_view=second_view and is_objective)
        for (name, sign), is_objective in wanted.items()
    ]


def feasibility(metrics: Sequence[Metric], points: Array) -> Array:
    """Return the probability that all constraints hold at embedded points, metrics taken as independent."""
    logs = np.zeros(len(points))
    for metric in metrics:
        if metric.modelled.threshold > -np.inf:
            mean, variance = metric.modelled.process.marginal(points)
            logs += log_ndtr((mean - metric.modelled.threshold) / np.sqrt(variance))
    return np.exp(logs)


def _metric(spec: StudySpec, data: Data, name: str, sign: float, *, is_objective: bool, second_view: bool) -> Metric:
    gains = sign * np.array([outcome.values[name] for outcome in data.outcomes])
    sds = np.array([outcome.sds[name] for outcome in data.outcomes])
    threshold = _threshold(spec, name, sign)
    # Where the middle is good for one objective, it need not be for another, nor for a limit of memory.
    has_trend = is_objective and len(spec.objectives) == 1
    task = _Task(
        points=data.points if has_trend else np.where(data.columns == DISTANCE_FROM_MIDDLE, 0.0, data.points),
        columns=data.columns,
        gains=gains,
        sds=sds,
        threshold=threshold,
        is_objective=is_objective,
        has_one_objective=len(spec.objectives) == 1,
    )
    chosen = _choose(task, second_view=second_view)
    # A later outcome can rule out the transform that suited the earlier ones: a logarithm, by its sign.
    transform = task.transforms[min(chosen.place, len(task.transforms) - 1)]
    noise = (sds * transform.slope(gains)) ** 2
    targets = transform.forward(gains)
    bound = float(transform.forward(np.array([threshold]))[0]) if np.isfinite(threshold) else threshold
    hypers = chosen.hypers if has_trend else [replace(hyper, trend=0.0) for hyper in chosen.hypers]
    process = Process(data.points, targets, noise, data.columns, hypers)
    modelled = Modelled(process=process, is_objective=is_objective, threshold=bound)
    return Metric(name=name, sign=sign, transform=transform, modelled=modelled)


def _threshold(spec: StudySpec, name: str, sign: float) -> float:
    """Return the gain that satisfies the constraints that bound the metric's gain from below."""
    bounds = [
        sign * constraint.bound
        for constraint in spec.constraints
        if constraint.metric == name and (constraint.relation == ">=") == (sign > 0)
    ]
    return max(bounds, default=-np.inf)


# ---------------------------------------------------------------- hyperparameters and transform


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    place: int
    """The index of the transform."""
    hypers: tuple[Hyperparameters, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """The data that hyperparameters and a transform are chosen for."""

    points: Array
    columns: Indices
    gains: Array
    sds: Array
    threshold: float
    """The gain that satisfies the constraints on the metric; minus infinity without one."""
    is_objective: bool
    has_one_objective: bool
    """Whether the study has one objective."""

    @property
    def transforms(self) -> Sequence[Transform]:
        """The candidate transforms, the simplest first; some data allow fewer of them."""
        if not self.is_objective:
            return constraint_transforms(self.gains, self.threshold)
        found = objective_transforms(self.gains, self.threshold, noise_sd=float(np.median(self.sds)))
        # Hypervolume is measured in the objectives' own units: a transform would change which trade-offs count.
        return found if self.has_one_objective else found[:1]

    def first(self, places: Indices) -> _Task:
        return replace(self, points=self.points[places], gains=self.gains[places], sds=self.sds[places])

    @property
    def key(self) -> bytes:
        parts = (self.points, self.columns, self.gains, self.sds)
        rest = repr((self.threshold, self.is_objective, self.has_one_objective)).encode()
        return blake2b(b"".join(part.tobytes() for part in parts) + rest).digest()


_Fits = dict[int, tuple[float, Fit]]
"""By the index of a transform: the log probability of the gains under it, and its most probable hyperparameters."""
_fits: OrderedDict[bytes, _Fits] = OrderedDict()
_chosen: OrderedDict[tuple[bytes, int], _Choice] = OrderedDict()


def _choose(task: _Task, *, second_view: bool) -> _Choice:
    """Return the most probable transform and samples of hyperparameters for it."""
    task = task.first(_informative(task.gains[: scheduled(len(task.gains))]))
    fits = _cached(_fits, task.key, lambda: _fit_all(task))
    by_evidence = sorted(fits, key=lambda place: (-fits[place][0], place))
    place = by_evidence[0]
    if second_view:
        place = next((other for other in by_evidence if (other == 0) != (place == 0)), place)
    return _cached(_chosen, (task.key, place), lambda: _sampled(task, place, fits[place][1]))


def _cached(known: OrderedDict[_Key, _Value], key: _Key, make: Callable[[], _Value]) -> _Value:
    if key not in known:
        known[key] = make()
        if len(known) > _CACHE_ENTRIES:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]


def _fit_all(task: _Task) -> _Fits:
    """Return the fits of all transforms worth comparing."""
    found = {}
    for place, transform in enumerate(worth_comparing(task.transforms, len(task.gains))):
        fitted = fit(_evidence(task, transform))
        found[place] = (fitted.evidence + log_jacobian(transform, task.gains), fitted)
    return found


def _sampled(task: _Task, place: int, fitted: Fit) -> _Choice:
    count = samples_for(len(task.gains))
    if count == 1:
        return _Choice(place=place, hypers=(fitted.hyper,))
    draw = sample if len(task.gains) < _CHAIN_BELOW_OBSERVATIONS else sample_around
    rough = _evidence(task, task.transforms[place])
    if not task.has_one_objective:
        return _Choice(place=place, hypers=tuple(draw(rough, fitted.vector, count)))
    smooth = _evidence(task, task.transforms[place], gaussian)
    found = fit(smooth, fitted.vector).vector
    hypers = [*draw(smooth, found, count // 2), *draw(rough, fitted.vector, count // 2)]
    return _Choice(place=place, hypers=tuple(hypers))


def _evidence(task: _Task, transform: Transform, kernel: Kernel = matern) -> Evidence:
    noise = (task.sds * transform.slope(task.gains)) ** 2
    return Evidence(task.points, transform.forward(task.gains), noise, task.columns, kernel)


def samples_for(count: int) -> int:
    """Return how many samples of the hyperparameters are drawn with `count` observations."""
    return next(samples for least, samples in _HYPERPARAMETER_SAMPLES if count >= least)


def _informative(gains: Array) -> Indices:
    """Return the indices of at most `_MAX_FITTED_OBSERVATIONS` observations: half are the best, half evenly spaced."""
    if len(gains) <= _MAX_FITTED_OBSERVATIONS:
        return np.arange(len(gains))
    order = np.argsort(-gains, kind="stable")
    half = _MAX_FITTED_OBSERVATIONS // 2
    others = np.sort(order[half:])
    spaced = others[np.linspace(0, len(others) - 1, _MAX_FITTED_OBSERVATIONS - half).astype(int)]
    return np.sort(np.concatenate([order[:half], spaced]))
