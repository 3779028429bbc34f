"""What the models of a study show to a person: importances, slices, contours, and how well they predict.

Importances (`bayes.sensitivity`) and cross-validation (`bayes.validation`) are those of our models; predictions are
those of Ax's adapter with our models, as in `ax_analyses`.
The models are fitted once. With many trials they are fitted to a part of them, so that the time stays bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from ..answer import answer
from ..arrays import Array
from ..spec import AnyParameter, CategoricalParameter, OrdinalParameter, StudySpec
from ..spec.values import all_values, count_of, value_at
from ..trial import RESULT_STATES, EarlierTrial, Params, ParamValue, TrialRecord
from .ask_tell import Optimizer
from .ax_analyses import fitted
from .ax_generator import known_warnings
from .ax_space import AxSpace
from .bayes.sensitivity import shares_of
from .generator import GeneratorError
from .history import History
from .importance import LEAST_OUTCOMES, Importance, Trend, trend_of
from .sobol import sobol_generator
from .surrogate.plan import Plan
from .surrogate.search import deterministic

with known_warnings():
    from ax.core.observation import ObservationFeatures

MOST_OUTCOMES: Final = 300
"""With more, the models are fitted to the best half of so many, and to the others evenly thinned."""
POINTS: Final = 41
"""Values at which a range is predicted in a slice; a contour has half as many on each side."""
_BACKGROUND: Final = 24
"""Configurations over which the trend of a parameter is averaged."""
_TREND_POINTS: Final = 9
_SAME: Final = 1e-9
"""Outcomes that differ by less than this share of their size are the same."""
_LEAST_SHARE: Final = 0.02
"""Below this share the trend of a parameter is an accident."""


class TooFewOutcomesError(GeneratorError):
    """The models have too little to go by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Predictions of a metric along one parameter, (points,), with the others as in a given configuration."""

    values: Sequence[ParamValue]
    means: Array
    sds: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Contour:
    """Predictions of a metric over two parameters, with the others as in a given configuration."""

    left: Sequence[ParamValue]
    """Values of the first parameter, (columns,)."""
    right: Sequence[ParamValue]
    """Values of the second parameter, (rows,)."""
    means: Array
    """(rows, columns)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """Outcomes and what the model predicts of each without it, (outcomes,), in the unit of the metric."""

    observed: Array
    predicted: Array
    predicted_sds: Array

    @property
    def explained(self) -> float:
        """The share of the variance of the outcomes that the predictions explain (R²); below 0 where they mislead."""
        # Squares of huge losses overflow, and a power of two changes no digit.
        exponent = -math.frexp(float(np.max(np.abs([self.observed, self.predicted]))))[1]
        observed, predicted = np.ldexp(self.observed, exponent), np.ldexp(self.predicted, exponent)
        spread = float(np.sum((observed - observed.mean()) ** 2))
        return 1 - float(np.sum((observed - predicted) ** 2)) / spread if spread > 0 else 0.0


class Insight:
    """The models of a study, fitted to its trials."""

    def __init__(self, spec: StudySpec, records: Sequence[TrialRecord], earlier: Sequence[EarlierTrial] = ()) -> None:
        """Fit the models.

        Raises:
            TooFewOutcomesError: fewer than `LEAST_OUTCOMES` trials have an outcome.
            GeneratorError: the models cannot be fitted, such as where no parameter varies.
        """
        with_outcome = [record for record in records if record.state in RESULT_STATES]
        kept = _thinned(spec, records)
        optimizer = Optimizer(spec, sobol_generator, earlier=earlier)
        optimizer.replay(kept)
        history = optimizer.history()
        if history.measured < LEAST_OUTCOMES:
            raise TooFewOutcomesError(
                f"{history.measured} trials have an outcome; a model needs at least {LEAST_OUTCOMES}"
            )
        self.spec = spec
        self.outcomes = len(with_outcome)
        """How many trials of the study have an outcome."""
        self.used = sum(record.state in RESULT_STATES for record in kept)
        """How many of them the models are fitted to."""
        self._space = AxSpace(spec)
        self._history = history
        self._validations: dict[str, CrossValidation] = {}
        with self._prepared():
            self._study, self._adapter = fitted(history)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are modelled: objectives, then constraints."""
        return self._history.metric_names

    def importances(self, metric: str) -> list[Importance]:
        """Return how much each parameter that varies matters for a metric, the most important first.

        All shares are 0, without intervals and trends, where the metric is the same in all trials. How far the others
        can be believed, `explained` says.

        Raises:
            GeneratorError: they cannot be computed.
        """
        if self._is_same(metric):
            return [Importance(parameter=axis.key, share=0.0) for axis in self._plan.space.axes]
        with self._prepared():
            process = next(one.modelled.process for one in self._plan.metrics if one.name == metric)
            found = shares_of(self._plan.space, process, seed=self.spec.optimizer.seed)
        listed = []
        for name in sorted(found, key=lambda name: -found[name].value):
            one = found[name]
            trend, at = self._trend(metric, name) if one.value >= _LEAST_SHARE else (None, None)
            listed.append(Importance(parameter=name, share=one.value, low=one.low, high=one.high, trend=trend, at=at))
        return listed

    def explained(self, metric: str) -> float | None:
        """Return the share of the variance of a metric that its model predicts of each trial without it (R²).

        None where the metric is the same in all trials.

        Raises:
            GeneratorError: it cannot be computed.
        """
        return None if self._is_same(metric) else self._validation(metric).explained

    def slice(self, metric: str, parameter: str, around: Params) -> Slice:
        """Return predictions along one parameter, the others as in `around`.

        Raises:
            GeneratorError: Ax cannot compute them.
        """
        values = values_along(self.spec.space[parameter], POINTS)
        means, sds = self._predict([{**around, parameter: value} for value in values])
        return Slice(values=values, means=means[metric], sds=sds[metric])

    def contour(self, metric: str, left: str, right: str, around: Params) -> Contour:
        """Return predictions over two parameters, the others as in `around`.

        Raises:
            GeneratorError: Ax cannot compute them.
        """
        columns = values_along(self.spec.space[left], POINTS // 2)
        rows = values_along(self.spec.space[right], POINTS // 2)
        means, _ = self._predict([{**around, left: column, right: row} for row in rows for column in columns])
        return Contour(left=columns, right=rows, means=means[metric].reshape(len(rows), len(columns)))

    def cross_validation(self) -> dict[str, CrossValidation]:
        """Return how well outcomes are predicted without themselves, by metric.

        Raises:
            GeneratorError: they cannot be computed.
        """
        return {metric: self._validation(metric) for metric in self.metrics}

    def _validation(self, metric: str) -> CrossValidation:
        if metric not in self._validations:
            with self._prepared():
                predicted, sds = self._plan.unseen(metric)
            observed = self._plan.values(metric)
            self._validations[metric] = CrossValidation(observed=observed, predicted=predicted, predicted_sds=sds)
        return self._validations[metric]

    @cached_property
    def _plan(self) -> Plan:
        with self._prepared():
            return Plan(self._history)

    def _is_same(self, metric: str) -> bool:
        """Return whether a metric is the same in all trials, but for rounding."""
        values = self._plan.values(metric)
        return bool(np.ptp(values) <= _SAME * np.max(np.abs(values)))

    def _trend(self, metric: str, name: str) -> tuple[Trend | None, ParamValue | None]:
        """Return the trend along a parameter with an order, on average over configurations in which it is active."""
        parameter = self.spec.space[name]
        if isinstance(parameter, CategoricalParameter) or (
            isinstance(parameter, OrdinalParameter) and not all(_is_number(choice) for choice in parameter.choices)
        ):
            return None, None
        values = values_along(parameter, _TREND_POINTS)
        active = [point for point in self._background if name in point]
        if not active:
            return None, None
        means, _ = self._predict([{**point, name: value} for value in values for point in active])
        averages = means[metric].reshape(len(values), len(active)).mean(axis=1)
        return trend_of(values, averages.tolist())

    @property
    def _background(self) -> Sequence[Params]:
        return [one.params for one in sobol_generator().propose(History(self.spec, []), _BACKGROUND)]

    def _predict(self, configurations: Sequence[Params]) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """Return means and standard deviations of the metrics, each (configurations,)."""
        features = [ObservationFeatures(parameters={**self._space.encode(params)}) for params in configurations]
        with self._prepared():
            means, covariances = self._adapter.predict(features)
        return (
            {name: np.asarray(means[name], dtype=float) for name in self.metrics},
            {name: np.sqrt(np.maximum(covariances[name][name], 0.0)) for name in self.metrics},
        )

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        try:
            with known_warnings(), deterministic(self.spec.optimizer.seed):
                yield
        except GeneratorError:
            raise
        except Exception as error:
            # Ax raises a dozen unrelated classes, and with any of them there is only less to show.
            raise GeneratorError(f"the models say nothing ({type(error).__name__}: {error})") from error


def values_along(parameter: AnyParameter, most: int) -> list[ParamValue]:
    """Return values of a parameter in their order: all of them up to `most`, else so many evenly spaced, ends included.

    Choices are never left out.
    """
    count = count_of(parameter)
    if count is not None and (count <= most or isinstance(parameter, CategoricalParameter | OrdinalParameter)):
        return list(all_values(parameter))
    return list(dict.fromkeys(value_at(parameter, place / (most - 1)) for place in range(most)))


def _is_number(value: ParamValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _thinned(spec: StudySpec, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that the models are fitted to, at most `MOST_OUTCOMES` of them with an outcome."""
    ended = [record for record in records if record.state in RESULT_STATES]
    if len(ended) <= MOST_OUTCOMES:
        return list(records)
    found = answer(spec, ended)
    ranked = [] if found is None else [number for one in found.candidates for number in one.trials]
    best = set(ranked[: MOST_OUTCOMES // 2])
    others = [record.number for record in ended if record.number not in best]
    places = np.linspace(0, len(others) - 1, MOST_OUTCOMES - len(best)).round().astype(int)
    kept = best | {others[place] for place in places}
    return [record for record in records if record.state not in RESULT_STATES or record.number in kept]
