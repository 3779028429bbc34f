"""The curves of a study at one moment, and what the rule `curves` makes of them for the next reports.

Fitting the model takes as long as many reports may, so a fit is used until the study has grown by a small share. What
is asked about a trial is its own curve as it is now; what it is compared with is that moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from ..arrays import Array
from ..spec import StudySpec
from ..spec.study import CurvesStopping
from .curve_model import Curve, CurveModel, Prediction
from .curves import places_of

_MOST_TAUGHT: Final = 2000
"""The model learns from at most so many curves, evenly spread over the study."""
_AT_ONCE: Final = 500
"""Ends that are predicted together: more take more memory."""


Key = tuple[int, int, int]
"""A trial that waits, by its id, its attempt and its last epoch: as long as these are the same, so is its curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A trial that is paused, or would be."""

    key: Key
    number: int
    curve: Curve
    """Its finite values; more is better. Anything where `StudyCurves.knows` it."""


class StudyCurves:
    """What the rule `curves` knows of a study with one objective and without constraints."""

    def __init__(
        self, spec: StudySpec, rule: CurvesStopping, curves: Sequence[Curve], done: Sequence[bool], *, begun: int
    ) -> None:
        """Take the finite values of all trials that have begun; more is better.

        Args:
            spec: the spec of the study.
            rule: its stopping rule.
            curves: one for each trial with a value, by number.
            done: which of them are completed with a result and have come to the first rung.
            begun: how many trials have reported an epoch, with or without a value.
        """
        self._places = places_of(spec, rule)
        self._curves = curves
        self._done = [curve for curve, is_done in zip(curves, done, strict=True) if is_done]
        self._best = max(1, math.ceil(rule.protect * begun))
        self._limit = max(rule.probability, 1 / max(begun, 1))
        self._table: Array = np.full((len(curves), spec.task.epochs + 1), -np.inf)
        for row, curve in zip(self._table, curves, strict=True):
            row[list(curve)] = list(curve.values())
        self._waiting: dict[Key, tuple[Curve, Prediction | None]] = {}
        self._hopeless: dict[Key, bool] = {}

    def knows(self, key: Key) -> bool:
        """Return whether the end of a waiting trial was asked for before."""
        return key in self._waiting

    def curve_of(self, trial: Waiting) -> Curve:
        """Return the curve of a waiting trial, as it was first asked about."""
        return self._waiting[trial.key][0] if trial.key in self._waiting else trial.curve

    def expected_ends(self, asked: Sequence[Waiting]) -> list[float]:
        """Return the expected ends of waiting trials; minus infinity for those that have shown too little."""
        return [-math.inf if end is None else end.mean for end in self._ends(asked)]

    def are_hopeless(self, asked: Sequence[Waiting]) -> list[bool]:
        """Return `is_hopeless` for waiting trials, which have come to a rung."""
        for trial, end in zip(asked, self._ends(asked), strict=True):
            if trial.key not in self._hopeless:
                is_behind = self._is_behind(self.curve_of(trial))
                self._hopeless[trial.key] = is_behind and self._is_improbable(end)
        return [self._hopeless[trial.key] for trial in asked]

    def _ends(self, asked: Sequence[Waiting]) -> list[Prediction | None]:
        new = [trial for trial in asked if trial.key not in self._waiting]
        shown = [trial for trial in new if max(trial.curve, default=0) >= self._places[0]]
        ends = self._predicted([trial.curve for trial in shown])
        found = {trial.key: end for trial, end in zip(shown, ends, strict=True)}
        self._waiting.update({trial.key: (trial.curve, found.get(trial.key)) for trial in new})
        return [self._waiting[trial.key][1] for trial in asked]

    def is_hopeless(self, own: Curve) -> bool:
        """Return whether a trial is not among the best at its last step and improbable to end among them.

        `own` has come to a rung. As `curves.hopeless` decides, but for the moment of the comparison.
        """
        return self._is_behind(own) and self._is_improbable(self._model.predict(own))

    def _is_behind(self, own: Curve) -> bool:
        """Return whether it is not among the best at its last step, and there is a bar to compare its end with."""
        step = max(own)
        better = int(np.count_nonzero(self._table[:, step] > own[step]))
        return better >= self._best and self._bar is not None

    def _is_improbable(self, end: Prediction | None) -> bool:
        return end is None or (self._bar is not None and end.probability_beyond(self._bar) < self._limit)

    def _predicted(self, curves: Sequence[Curve]) -> list[Prediction]:
        starts = range(0, len(curves), _AT_ONCE)
        return [end for start in starts for end in self._model.predict_all(curves[start : start + _AT_ONCE])]

    @cached_property
    def _model(self) -> CurveModel:
        taught = self._curves[:: -(-len(self._curves) // _MOST_TAUGHT) or 1]
        return CurveModel(taught, self._places, improves=True, on_these_clips=True)

    @cached_property
    def _bar(self) -> Prediction | None:
        """The end of the last one of the best completed trials; None while too few are completed."""
        if len(self._done) < self._best:
            return None
        return sorted(self._predicted(self._done), key=lambda end: -end.mean)[self._best - 1]
