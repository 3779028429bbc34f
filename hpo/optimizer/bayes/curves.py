"""The final value that a partial learning curve predicts.

The curves of the study show how much a metric still changes after a given epoch, and how noisy one value is
(`hpo.stopping.curve_model`, which the stopping rule `curves` uses too). A trial counts with its predicted final value
without noise, and with the uncertainty of that prediction as extra noise: the earlier it ended, the less it influences
the model. The end of a completed trial is predicted too, from all of its epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...results.outcome import metric_curve, metric_sign
from ...stopping.ends import is_complete, predicted_ends
from ...trial import Params
from ..history import History, Observation
from .schedule import scheduled


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The predicted final metrics of one configuration."""

    params: Params
    values: Mapping[str, float]
    sds: Mapping[str, float]
    """Known standard deviation of each value around the true one: the noise stated in the spec and the uncertainty of
    a predicted final value; 0 for a metric without a curve."""


def outcomes(history: History) -> list[Outcome]:
    """Return the outcome of every trial with metrics: the predicted last value of every metric that has a curve."""
    known = [seen for seen in history.observations if seen.metrics and not seen.is_evidence]
    values = [dict(seen.metrics) for seen in known]
    sds = [{**dict.fromkeys(seen.metrics, 0.0), **seen.vague} for seen in known]
    for name in history.metric_names:
        for place, end in _ends(history, known, name).items():
            values[place][name], sds[place][name] = end
    noise = {objective.metric: objective.noise_sd for objective in history.spec.objectives if objective.noise_sd}
    for row in sds:
        row.update({name: math.hypot(row[name], sd) for name, sd in noise.items()})
    return [Outcome(params=seen.params, values=values[place], sds=sds[place]) for place, seen in enumerate(known)]


def _ends(history: History, known: Sequence[Observation], name: str) -> dict[int, tuple[float, float]]:
    """Return (predicted final value, standard deviation) by index, for the trials that have a curve of the metric.

    A completed trial that reported nothing before its end has none: how noisy its value is cannot be known.
    """
    sign = metric_sign(history.spec, name)
    epochs = history.spec.task.epochs
    curves = [_curve(seen, name, sign or 1.0, epochs) for seen in known]
    complete = [is_complete(seen.state, seen.step, epochs) for seen in known]
    ends = predicted_ends(curves, complete, epochs, improves=sign is not None, taught=_training_count(len(known)))
    return {place: ((sign or 1.0) * end.mean, end.deviation) for place, end in ends.by_place.items()}


def _curve(seen: Observation, name: str, sign: float, epochs: int) -> dict[int, float]:
    """Return the curve of a metric, turned so that more is better; a completed one ends with the final value."""
    curve = {step: value for step, value in metric_curve(seen.curve, name, sign).items() if step > 0}
    if not curve or not is_complete(seen.state, seen.step, epochs):
        return curve
    return {**{step: value for step, value in curve.items() if step < seen.step}, epochs: sign * seen.metrics[name]}


def _training_count(count: int) -> int:
    """Return how many of the first observations the model of curves is trained on.

    As many as hyperparameters are fitted to. If every new trial changed all predictions, hyperparameters fitted to the
    earlier predictions would no longer match them.
    """
    return scheduled(count)
