"""The models of a study: one process for each metric that is optimised or constrained.

Hyperparameters and transforms are chosen anew only when it pays: at numbers of observations that grow by a twentieth.
Between two such numbers those of the earlier observations are used with all data. They are a function of those
observations, so that a restart changes nothing; what is remembered here only saves work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...results.outcome import gain
from ...spec import StudySpec
from .acquisition import Modelled
from .arrays import Array
from .curves import Outcome
from .fit import Evidence, Fit, fit
from .gp import Hyperparameters, Process
from .improvement import log_probability
from .kernels import Kernel, gaussian, matern
from .laplace import sample_around
from .outcome import Transform, constraint_transforms, log_jacobian, objective_transforms, worth_comparing
from .schedule import scheduled
from .slice_sampling import sample

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_MOST = 200
"""Hyperparameters are chosen from at most so many observations; the posterior uses all."""
_REMEMBERED = 256
_FEW = 30
"""Below so many observations hyperparameters are sampled by a chain, then around the most probable ones."""
_SAMPLES = ((150, 1), (_FEW, 4), (0, 8))
"""(least number of observations, samples of the hyperparameters); 1 stands for the most probable ones.

With one objective half of the samples are of the Matern kernel and half of the Gaussian, which a few dozen observations
cannot tell apart. (With several objectives that is unmeasured, and the Matern kernel has all.)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The model of one metric and the way back to its unit."""

    name: str
    sign: float
    transform: Transform
    modelled: Modelled

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the metric at embedded points, in its own unit."""
        mean, variance = self.modelled.process.marginal(points)
        nodes, weights = np.polynomial.hermite_e.hermegauss(9)
        weights = weights / weights.sum()
        gains = self.transform.inverse(mean[:, None] + np.sqrt(variance)[:, None] * nodes)
        centre = gains @ weights
        spread = np.sqrt(np.maximum((gains - centre[:, None]) ** 2 @ weights, 0.0))
        return self.sign * centre, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What is known of the configurations that have shown an outcome."""

    points: Array
    """Embedded configurations."""
    columns: NDArray[np.intp]
    outcomes: Sequence[Outcome]


def model(spec: StudySpec, data: Data, *, second_view: bool = False) -> list[Metric]:
    """Fit the metrics of the objectives, then those of the constraints that do not point the way of an objective.

    With `second_view` objectives get the best transform of the other kind: the identity where a logarithm is the most
    probable, and the other way round.
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
            logs += log_probability(mean, np.sqrt(variance), metric.modelled.threshold)[0]
    return np.exp(logs)


def _metric(spec: StudySpec, data: Data, name: str, sign: float, *, is_objective: bool, second_view: bool) -> Metric:
    gains = sign * np.array([outcome.values[name] for outcome in data.outcomes])
    sds = np.array([outcome.sds[name] for outcome in data.outcomes])
    threshold = _threshold(spec, name, sign)
    task = _Task(
        points=data.points,
        columns=data.columns,
        gains=gains,
        sds=sds,
        threshold=threshold,
        is_objective=is_objective,
        has_one_objective=len(spec.objectives) == 1,
    )
    chosen = _choose(task, second_view=second_view)
    # A later outcome can rule out the shape that suited the earlier ones, such as a logarithm by its sign.
    transform = task.transforms[min(chosen.place, len(task.transforms) - 1)]
    noise = (sds * transform.slope(gains)) ** 2
    targets = transform.forward(gains)
    bound = float(transform.forward(np.array([threshold]))[0]) if np.isfinite(threshold) else threshold
    process = Process(data.points, targets, noise, data.columns, chosen.hypers)
    modelled = Modelled(process=process, is_objective=is_objective, threshold=bound)
    return Metric(name=name, sign=sign, transform=transform, modelled=modelled)


def _threshold(spec: StudySpec, name: str, sign: float) -> float:
    """Return the gain that satisfies the constraints on a metric which point the way of its gain."""
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
    """Which of the transforms."""
    hypers: tuple[Hyperparameters, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What hyperparameters and transform are chosen for."""

    points: Array
    columns: NDArray[np.intp]
    gains: Array
    sds: Array
    threshold: float
    """The gain that satisfies the constraints on the metric; minus infinity without one."""
    is_objective: bool
    has_one_objective: bool
    """Whether the study has one objective."""

    @property
    def transforms(self) -> Sequence[Transform]:
        """What may be modelled, the simplest first; fewer for some data of the same kind of task."""
        if not self.is_objective:
            return constraint_transforms(self.gains, self.threshold)
        found = objective_transforms(self.gains, self.threshold)
        # Hypervolume is measured in the objectives as they are: a warp would change which trade-offs count.
        return found if self.has_one_objective else found[:1]

    def first(self, places: NDArray[np.intp]) -> _Task:
        return replace(self, points=self.points[places], gains=self.gains[places], sds=self.sds[places])

    @property
    def key(self) -> bytes:
        parts = (self.points, self.columns, self.gains, self.sds)
        rest = repr((self.threshold, self.is_objective, self.has_one_objective)).encode()
        return blake2b(b"".join(part.tobytes() for part in parts) + rest).digest()


_Fits = dict[int, tuple[float, Fit]]
"""By the place of a transform, how probable it makes the gains, and its most probable hyperparameters."""
_fits: OrderedDict[bytes, _Fits] = OrderedDict()
_chosen: OrderedDict[tuple[bytes, int], _Choice] = OrderedDict()


def _choose(task: _Task, *, second_view: bool) -> _Choice:
    """Choose the transform by its best hyperparameters, and sample hyperparameters for it."""
    task = task.first(_informative(task.gains[: scheduled(len(task.gains))]))
    fits = _remembered(_fits, task.key, lambda: _fit_all(task))
    by_evidence = sorted(fits, key=lambda place: (-fits[place][0], place))
    place = by_evidence[0]
    if second_view:
        place = next((other for other in by_evidence if (other == 0) != (place == 0)), place)
    return _remembered(_chosen, (task.key, place), lambda: _sampled(task, place, fits[place][1]))


def _remembered(known: OrderedDict[_Key, _Value], key: _Key, make: Callable[[], _Value]) -> _Value:
    if key not in known:
        known[key] = make()
        if len(known) > _REMEMBERED:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]


def _fit_all(task: _Task) -> _Fits:
    """Fit every transform worth comparing."""
    found = {}
    for place, transform in enumerate(worth_comparing(task.transforms, len(task.gains))):
        fitted = fit(_evidence(task, transform))
        found[place] = (fitted.evidence + log_jacobian(transform, task.gains), fitted)
    return found


def _sampled(task: _Task, place: int, fitted: Fit) -> _Choice:
    count = samples_for(len(task.gains))
    if count == 1:
        return _Choice(place=place, hypers=(fitted.hyper,))
    draw = sample if len(task.gains) < _FEW else sample_around
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
    return next(samples for least, samples in _SAMPLES if count >= least)


def _informative(gains: Array) -> NDArray[np.intp]:
    """Return the places of at most `_MOST` observations: the better half of them the best, the others evenly drawn."""
    if len(gains) <= _MOST:
        return np.arange(len(gains))
    order = np.argsort(-gains, kind="stable")
    others = np.sort(order[_MOST // 2 :])
    evenly = others[np.linspace(0, len(others) - 1, _MOST - _MOST // 2).astype(int)]
    return np.sort(np.concatenate([order[: _MOST // 2], evenly]))
