"""The final value that a partial learning curve predicts.

The curves of the study show how much a metric still changes after a given epoch (`hpo.stopping.curve_model`, which the
stopping rule `curves` uses too). A trial that was stopped, or is still running, counts with its predicted final value
and the uncertainty of that prediction as extra noise: the earlier it ended, the less it influences the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...results.outcome import metric_curve, metric_sign
from ...stopping.curve_model import CurveModel, Prediction, rungs
from ...trial import Params, TrialState
from ..history import PENDING, History, Observation
from .schedule import scheduled


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The measured or predicted final metrics of one configuration."""

    params: Params
    values: Mapping[str, float]
    sds: Mapping[str, float]
    """Known standard deviation of each value around the true one: the noise stated in the spec and the uncertainty of
    a predicted final value; 0 where there is neither."""
    is_pending: bool


def outcomes(history: History) -> list[Outcome]:
    """Return the outcome of every trial with metrics; of unfinished trials the outcome predicted at the last epoch."""
    full = history.spec.task.epochs

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
        Outcome(params=seen.params, values=values[place], sds=sds[place], is_pending=seen.state in PENDING)
        for place, seen in enumerate(known)
    ]


def _ends(
    history: History, known: Sequence[Observation], partial: Sequence[int], name: str
) -> dict[int, tuple[float, float]]:
    """Return (predicted final value, standard deviation) by index, for the `partial` curves that have the metric."""
    sign = metric_sign(history.spec, name)
    places = rungs(1, history.spec.task.epochs)
    curves = [metric_curve(seen.curve, name, sign or 1.0) for seen in known]
    training = [curve for curve in curves[: _training_count(len(known))] if curve]
    model = CurveModel(training, places, improves=sign is not None)
    shown = [place for place in partial if curves[place]]
    ends = model.predict_all([curves[place] for place in shown])
    return {place: ((sign or 1.0) * end.mean, _deviation(end)) for place, end in zip(shown, ends, strict=True)}


def _deviation(end: Prediction) -> float:
    """Return the standard deviation of a Student-t prediction; the model's prior has three degrees of freedom."""
    return end.sd * math.sqrt(end.freedom / max(end.freedom - 2, 1.0))


def _training_count(count: int) -> int:
    """Return how many of the first observations the model of curves is trained on.

    As many as hyperparameters are fitted to. If every new trial changed all predictions, hyperparameters fitted to the
    earlier predictions would no longer match them.
    """
    return scheduled(count)
