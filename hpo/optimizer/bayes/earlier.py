"""Trials of earlier studies as further observations of the models.

The study is one more categorical parameter of the space: each study is a corner of a simplex, and the parameter has its
own length scale. How similar the studies are is therefore learned with all else, as in a multi-task model (Bonilla et
al., 2008, "Multi-task Gaussian Process Prediction"): the more trials contradict an earlier study, the less it counts.
Suggestions are made for the corner of this study.

Outcomes of an earlier study are standardised and mapped to the scale of this study's outcomes: both are compared at the
configurations of this study, and while those are few, the units are assumed to be the same. Variation that the
configurations of an earlier study do not explain is treated as noise of that study.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ...arrays import Array, Indices
from ...results.outcome import gain
from ...spec import StudySpec
from ...trial import EarlierTrial
from ..history import History
from .curves import Outcome
from .fit import Evidence, hyperparameters
from .gp import Hyperparameters, Process
from .models import Data
from .space import Space

_MAX_CENTRES: Final = 4
"""How many of the best configurations of all earlier studies the search looks around."""
_SAME_UNIT_WEIGHT: Final = 2.0
"""How many trials of this study, beyond the first, weigh as much as the assumption that both have the same unit."""
_MIN_PREDICTED_VARIANCE: Final = 0.1
"""Lower bound of the variance of the values that an earlier study predicts for the trials of this one."""
_NOISE_GRID: Final = (0.003, 0.03, 0.1, 0.3, 1.0)
"""Noise variances of standardised outcomes that are compared; the smallest is the usual noise of any study."""
_FENCE_QUARTILE_RANGES: Final = 3.0
"""Gains are raised to at least this many interquartile ranges below the lower quartile."""


class StudySpace(Space):
    """A space with the study as one more categorical parameter; rows belong to this study unless embedded otherwise."""

    def __init__(self, spec: StudySpec, studies: Sequence[str]) -> None:
        super().__init__(spec)
        self._places = {name: place for place, name in enumerate(studies, 1)}
        self._corners = np.eye(len(studies) + 1) / math.sqrt(2)
        self._own = self.columns
        self.columns = np.append(self._own, np.full(len(self._corners), self.dimensions))

    def embed(self, rows: Array) -> Array:
        """Return the embedded rows of this study."""
        return self._at(super().embed(rows), 0)

    def embed_earlier(self, rows: Array, study: str) -> Array:
        """Return the embedded rows of an earlier study."""
        return self._at(super().embed(rows), self._places[study])

    def without_study(self, points: Array) -> tuple[Array, Indices]:
        """Return the points without the columns of the study, and which axis each remaining column belongs to."""
        return points[:, : len(self._own)], self._own

    def _at(self, points: Array, place: int) -> Array:
        return np.concatenate([points, np.tile(self._corners[place], (len(points), 1))], axis=1)


def space_of(history: History) -> Space:
    """Return the space that a history is modelled in."""
    if not history.earlier:
        return Space(history.spec)
    return StudySpace(history.spec, list(dict.fromkeys(trial.study for trial in history.earlier)))


def with_earlier(history: History, space: Space, data: Data) -> Data:
    """Return the data with the outcomes of the earlier studies after those of this one."""
    if not isinstance(space, StudySpace):
        return data
    points, outcomes = [data.points], list(data.outcomes)
    for name in dict.fromkeys(trial.study for trial in history.earlier):
        trials = [trial for trial in history.earlier if trial.study == name]
        found = space.embed_earlier(np.stack([space.encode(trial.params) for trial in trials]), name)
        points.append(found)
        outcomes += _outcomes(history, trials, data, _Source(space, data, found))
    return replace(data, points=np.concatenate(points), outcomes=outcomes)


def promising(history: History, space: Space) -> Array:
    """Return the rows of the best configurations of the earlier studies, by the first objective."""
    objective = history.spec.objectives[0]
    ranked = sorted(history.earlier, key=lambda trial: -gain(objective, trial.metrics[objective.metric]))
    return np.array([space.encode(trial.params) for trial in ranked[:_MAX_CENTRES]]).reshape(-1, space.dimensions)


class _Source:
    """An earlier study, compared with this one."""

    def __init__(self, space: StudySpace, data: Data, points: Array) -> None:
        """Compare the `data` of this study with the earlier study's embedded configurations, `points`."""
        self._points, self._columns = space.without_study(points)
        self._here = space.without_study(data.points)[0]

    def on_scale(self, earlier: Array, here: Array) -> tuple[Array, float]:
        """Return outcomes of the earlier study on the scale of this one's, and the standard deviation of their noise.

        The noise is the variation that the configuration does not explain, beyond the noise that all studies share.
        """
        unit = max(float(earlier.std()), 1e-12)
        scores = (earlier - earlier.mean()) / unit
        usual = self._explanation(scores)
        process = Process(self._points, scores, np.zeros(len(scores)), self._columns, [usual])
        expected = process.mean(self._here)
        scale = unit
        if here.std() > 0:
            spread = float(here.std()) / math.sqrt(max(float(expected.var()), _MIN_PREDICTED_VARIANCE))
            trust = _SAME_UNIT_WEIGHT / (_SAME_UNIT_WEIGHT + len(here) - 1)
            scale = unit**trust * spread ** (1 - trust)
        beyond = usual.noise if usual.noise > _NOISE_GRID[0] else 0.0
        return np.asarray(here.mean() + scale * (scores - expected.mean())), scale * math.sqrt(beyond)

    def _explanation(self, scores: Array) -> Hyperparameters:
        """Return the usual hyperparameters with the noise that makes standardised outcomes most probable."""
        evidence = Evidence(self._points, scores, np.zeros(len(scores)), self._columns)
        found = []
        for noise in _NOISE_GRID:
            vector = evidence.centre.copy()
            vector[evidence.parameters + 1] = math.log(noise)
            found.append((evidence.log_likelihood(vector), vector))
        return hyperparameters(max(found, key=lambda entry: entry[0])[1])


def _outcomes(history: History, trials: Sequence[EarlierTrial], data: Data, source: _Source) -> list[Outcome]:
    values, sds = {}, {}
    for name in history.metric_names:
        here = np.array([outcome.values[name] for outcome in data.outcomes])
        if all(name in trial.metrics for trial in trials):
            values[name], sds[name] = source.on_scale(_clipped(history.spec, name, trials), here)
        else:
            # The placeholder is so uncertain that a model learns nothing from it.
            values[name] = np.full(len(trials), np.median(here))
            sds[name] = 3 * float(np.std(here)) + 1e-6
    return [
        Outcome(
            params=trial.params,
            values={name: float(values[name][place]) for name in values},
            sds=sds,
        )
        for place, trial in enumerate(trials)
    ]


def _clipped(spec: StudySpec, name: str, trials: Sequence[EarlierTrial]) -> Array:
    """Return the values of a metric; an objective's are limited to a fence below the quartiles (winsorised)."""
    values = np.array([trial.metrics[name] for trial in trials])
    sign = next((gain(objective, 1.0) for objective in spec.objectives if objective.metric == name), None)
    if sign is None:
        return values
    lower, upper = np.quantile(sign * values, (0.25, 0.75))
    return np.asarray(sign * np.maximum(sign * values, lower - _FENCE_QUARTILE_RANGES * (upper - lower)))
