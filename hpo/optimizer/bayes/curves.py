"""What a partial learning curve says of the value at the end.

The curves of the study show how much a metric still changes after a given epoch (`hpo.stopping.curve_model`, the model
that the stopping rule `curves` asks too). A trial that was stopped, or is still running, is given the end they suggest,
with the uncertainty of that step as extra noise: it informs the model, and the less the earlier it ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...results.outcome import metric_curve, metric_sign
from ...stopping.curve_model import CurveModel, Prediction, rungs
from ...trial import Params, TrialState
from ..history import History, Observation
from .schedule import scheduled


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known, or expected, of one configuration at full length."""

    params: Params
    values: Mapping[str, float]
    sds: Mapping[str, float]
    """Standard deviation of each value around what the configuration is worth, as far as it is known: the noise that a
    person gave, and the uncertainty of an end that was predicted; 0 where neither is there."""
    is_pending: bool


def outcomes(history: History) -> list[Outcome]:
    """Return the outcome of every trial that has shown one, partial ones carried to their last epoch."""
    full = history.spec.task.epochs
    pending = (TrialState.SUGGESTED, TrialState.RUNNING, TrialState.PAUSED)
    known = [seen for seen in history.observations if seen.metrics]
    values = [dict(seen.metrics) for seen in known]
    sds = [{**dict.fromkeys(seen.metrics, 0.0), **seen.vague} for seen in known]
    partial = [place for place, seen in enumerate(known) if seen.state is not TrialState.COMPLETED and seen.step < full]
    for name in history.metric_names if partial else ():
        for place, end in _ends(history, known, partial, name).items():
            values[place][name], sds[place][name] = end
    noise = {objective.metric: objective.noise_sd for objective in history.spec.objectives if objective.noise_sd}
    for row in sds:
        row.update({name: math.hypot(row[name], sd) for name, sd in noise.items()})
    return [
        Outcome(params=seen.params, values=values[place], sds=sds[place], is_pending=seen.state in pending)
        for place, seen in enumerate(known)
    ]


def _ends(
    history: History, known: Sequence[Observation], partial: Sequence[int], name: str
) -> dict[int, tuple[float, float]]:
    """Return the expected ends, and their standard deviations, of those of the `partial` curves that show a metric."""
    sign = metric_sign(history.spec, name)
    places = rungs(1, history.spec.task.epochs)
    curves = [metric_curve(seen.curve, name, sign or 1.0) for seen in known]
    model = CurveModel([curve for curve in curves[: _taught(len(known))] if curve], places, improves=sign is not None)
    shown = [place for place in partial if curves[place]]
    ends = model.predict_all([curves[place] for place in shown])
    return {place: ((sign or 1.0) * end.mean, _deviation(end)) for place, end in zip(shown, ends, strict=True)}


def _deviation(end: Prediction) -> float:
    """Return the standard deviation of a Student-t belief; at least three degrees of freedom are the model's prior."""
    return end.sd * math.sqrt(end.freedom / max(end.freedom - 2, 1.0))


def _taught(count: int) -> int:
    """Return how many of the first observations teach the model of curves.

    As many as those that hyperparameters are chosen from: were all ends predicted anew with each trial, what had been
    chosen from the earlier predictions would fit none of them.
    """
    return scheduled(count)
