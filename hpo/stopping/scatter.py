"""How noisy the values of curves are late in training, from the values beside them.

A filter over curves counts as noise all that it cannot explain, most of it in the first epochs, where curves move in
ways that no model of few numbers foresees. Where a training ends only the noise of its last epochs counts, and that
shows in how far a value lies from the straight line between its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..arrays import Array

_FREEDOM_OF_FILTER: Final = 2.0
"""Degrees of freedom with which the noise that the filter sees counts in the noise of all curves."""
_FREEDOM_OF_ALL: Final = 10.0
"""Degrees of freedom with which the noise of all curves counts in that of one."""
_INDEPENDENT_SHARE: Final = 0.6
"""The degrees of freedom of one distance from the line between neighbours, since neighbours share values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LateNoise:
    """The noise of single values in the later half of the epochs, of all curves of a study and of each.

    Curves are rows, (trials, epochs), NaN where nothing was seen.
    """

    of_all: float
    """The variance of a value, from all curves together."""

    @classmethod
    def learn(cls, curves: Array, of_filter: float) -> LateNoise:
        """Return the noise of `curves`, which is at most `of_filter`, the variance that the filter sees in a value."""
        squares, freedom = _late_squares(curves)
        found = (squares.sum() + _FREEDOM_OF_FILTER * of_filter) / (freedom.sum() + _FREEDOM_OF_FILTER)
        return cls(of_all=min(float(found), of_filter))

    def variances(self, curves: Array) -> Array:
        """Return the variance of a value of each curve, (trials,); that of all curves where its own does not show."""
        squares, freedom = _late_squares(curves)
        return np.asarray((squares + _FREEDOM_OF_ALL * self.of_all) / (freedom + _FREEDOM_OF_ALL))


def is_late(epochs: Array, last: int) -> Array:
    """Return which of `epochs`, counted from 1 and whole or not, lie in the later half of training."""
    return np.asarray(2 * epochs > last)


def _late_squares(curves: Array) -> tuple[Array, Array]:
    """Return the sums of the squared late noise of curves, (trials,), and their degrees of freedom."""
    last = curves.shape[1]
    epochs = np.arange(1, last + 1)
    late, epochs = curves[:, is_late(epochs, last)], epochs[is_late(epochs, last)]
    if late.shape[1] < 3:
        return np.zeros(len(curves)), np.zeros(len(curves))
    # What was seen first, in its order: then each value stands between its neighbours.
    order = np.argsort(np.isnan(late), axis=1, kind="stable")
    times, values = epochs[order].astype(float), np.take_along_axis(late, order, axis=1)
    share = (times[:, 1:-1] - times[:, :-2]) / (times[:, 2:] - times[:, :-2])
    distance = values[:, 1:-1] - (1 - share) * values[:, :-2] - share * values[:, 2:]
    squares = distance**2 / (1 + share**2 + (1 - share) ** 2)
    known = ~np.isnan(squares)
    return (
        _INDEPENDENT_SHARE * np.where(known, squares, 0.0).sum(axis=1),
        _INDEPENDENT_SHARE * np.count_nonzero(known, axis=1),
    )
