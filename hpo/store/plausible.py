"""Refuse what a trial cannot have measured: an epoch after the last, a share of clips above 1.

A worker of someone else's making, or one with a defect, must not decide which configuration is the best.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ..errors import ReportError
from ..protocol import Measurement
from ..spec import stored_spec

_ROUNDING: Final = 1e-6
"""By how much a share may pass its bounds: a mean of numbers in single precision is not exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """What the trials of a study can report."""

    epochs: int
    shares: frozenset[str]
    """The metrics from 0 to 1."""

    def problem(self, metrics: Mapping[str, float]) -> str | None:
        """Return what is wrong with metrics, as a sentence; None if nothing is."""
        for name in sorted(self.shares & metrics.keys()):
            if not -_ROUNDING <= metrics[name] <= 1 + _ROUNDING:
                return f"{name} is {metrics[name]:g}, but it is a share, from 0 to 1"
        return None


def check(spec: str, *, measurements: Sequence[Measurement] = (), metrics: Mapping[str, float] | None = None) -> None:
    """Check measurements of epochs and final metrics against a stored spec; nothing where that cannot be read.

    Raises:
        ReportError: with what is wrong first.
    """
    if not measurements and not metrics:
        return
    try:
        bounds = _bounds(spec)
    except ValueError:  # of another release, which this one cannot hold against its spec; what was measured is kept
        return
    for one in measurements:
        if one.step > bounds.epochs:
            raise ReportError(f"epoch {one.step} was reported, but trials of this study have {bounds.epochs}")
    for found in [*(one.metrics for one in measurements), metrics or {}]:
        if (problem := bounds.problem(found)) is not None:
            raise ReportError(problem)


@lru_cache(maxsize=64)
def _bounds(spec: str) -> _Bounds:
    task = stored_spec(json.loads(spec)).task
    shares = (name for name, metric in task.reported_metrics.items() if metric.is_share)
    return _Bounds(epochs=task.epochs, shares=frozenset(shares))
