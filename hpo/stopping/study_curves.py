"""The curves of a study at one moment, and what the rule `curves` makes of them for the next reports.

Fitting the model takes as long as many reports may, so a fit is used until the study has grown by a small share. What
is asked about a trial is its own curve as it is now; what it is compared with is that moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

    def is_hopeless(self, own: Curve) -> bool:
        """Return whether a trial is not among the best at its last step and improbable to end among them.

        `own` has come to a rung. As `curves.hopeless` decides, but for the moment of the comparison.
        """
        step = max(own)
        if np.count_nonzero(self._table[:, step] > own[step]) < self._best or self._bar is None:
            return False
        return self._model.predict(own).probability_beyond(self._bar) < self._limit

    @cached_property
    def _model(self) -> CurveModel:
        taught = self._curves[:: -(-len(self._curves) // _MOST_TAUGHT) or 1]
        return CurveModel(taught, self._places, improves=True, on_these_clips=True)

    @cached_property
    def _bar(self) -> Prediction | None:
        """The end of the last one of the best completed trials; None while too few are completed."""
        if len(self._done) < self._best:
            return None
        starts = range(0, len(self._done), _AT_ONCE)
        ends = [end for start in starts for end in self._model.predict_all(self._done[start : start + _AT_ONCE])]
        return sorted(ends, key=lambda end: -end.mean)[self._best - 1]
