"""Four simple stopping rules of Optuna as functions of curves: median, percentile, threshold and patience.

They decide as `MedianPruner`, `PercentilePruner`, `ThresholdPruner` and `PatientPruner` of Optuna 5 do with
`interval_steps=1`, `n_min_trials=1` and `min_delta=0`. The caller has checked that the trial has done enough epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .curve_model import Curve


def percentile_stops(percentile: float, own: Curve, rivals: Sequence[float], *, maximize: bool) -> bool:
    """Return whether the best value of `own` so far is outside the best `percentile` (0 to 100) of `rivals`.

    `rivals` are the values of completed trials at the last step of `own`; without any the trial continues. Percentiles
    are interpolated linearly.
    """
    if not rivals:
        return False
    if maximize:
        return bool(max(own.values()) < np.percentile(rivals, 100 - percentile))
    return bool(min(own.values()) > np.percentile(rivals, percentile))


def between(near: Sequence[float], place: float) -> float:
    """Return the value at a fractional `place` of sorted values, of which `near` are those from floor(place) on.

    The arithmetic is that of `numpy.percentile`, to the last bit.
    """
    low, high = near[0], near[-1]
    part = place - math.floor(place)
    return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part


def threshold_stops(lower: float | None, upper: float | None, own: Curve) -> bool:
    """Return whether the last value of `own` is outside [`lower`, `upper`]; None means no bound."""
    last = own[max(own)]
    return last < (-math.inf if lower is None else lower) or last > (math.inf if upper is None else upper)


def patience_stops(patience: int, own: Curve) -> bool:
    """Return whether the last `patience` + 1 values of `own` are all worse than the best before; more is better."""
    values = [own[step] for step in sorted(own)]
    before, after = values[: -patience - 1], values[-patience - 1 :]
    return bool(before) and max(before) > max(after)
