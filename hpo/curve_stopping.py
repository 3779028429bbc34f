"""The stopping rule `curves`: stop a trial that will hardly end among the best, by a model of the study's curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .curve_model import CurveModel, Prediction, rungs
from .outcomes import final_metrics, is_feasible, metric_curve, metric_sign
from .spec import StudySpec
from .spec.study import CurvesStopping
from .standing import dominates, gains, scores
from .trial import TrialRecord, TrialState

_SAMPLES = 10
"""Two to this many draws where several predictions decide together."""


def is_hopeless(spec: StudySpec, rule: CurvesStopping, measured: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Say whether the trial is not among the best at its last step and improbable to end among the best.

    The best are `rule.protect` of the trials, at least one. The curve of `measured` is finite in the objectives.
    """
    places = rungs(rule.min_epochs, spec.task.epochs)
    step = max(measured.curve)
    begun = [rival for rival in rivals if rival.curve]
    best = max(1, math.ceil(rule.protect * (len(begun) + 1)))
    if _is_among_best(spec, measured, begun, step, best):
        return False
    return _chance(spec, places, measured, begun, best) < rule.probability


def is_at_rung(spec: StudySpec, rule: CurvesStopping, measured: TrialRecord) -> bool:
    """Whether the last report of a trial was the first at or after a rung; only then is the rule asked."""
    *_, before, last = [0, 0, *sorted(measured.curve)]
    return any(before < place <= last for place in rungs(rule.min_epochs, spec.task.epochs)[:-1])


def _is_among_best(spec: StudySpec, measured: TrialRecord, begun: Sequence[TrialRecord], step: int, best: int) -> bool:
    rows = {record.id: record.curve[step] for record in (measured, *begun) if step in record.curve}
    standing = scores(spec, rows)
    if measured.id not in standing:
        return False
    return sum(score > standing[measured.id] for score in standing.values()) < best


def _chance(
    spec: StudySpec, places: Sequence[int], measured: TrialRecord, begun: Sequence[TrialRecord], best: int
) -> float:
    """Give the probability that the trial ends feasible and as good as the best completed ones; 1 before there are any.

    With several objectives: that no outcome of a completed trial dominates its own.
    """
    finals = [
        values
        for rival in begun
        if rival.state is TrialState.COMPLETED
        and is_feasible(spec, final_metrics(rival))
        and (values := gains(spec, final_metrics(rival))) is not None
    ]
    if len(finals) < best:
        return 1.0
    metrics = [objective.metric for objective in spec.objectives] + [c.metric for c in spec.constraints]
    predictions = {name: _predict(spec, places, name, measured, begun) for name in dict.fromkeys(metrics)}
    if len(spec.objectives) == 1 and not spec.constraints:
        (prediction,) = predictions.values()
        bar = sorted((values[0] for values in finals), reverse=True)[best - 1]
        return 0.0 if prediction is None else prediction.probability_above(bar)
    return _joint_chance(spec, predictions, finals, best)


def _joint_chance(
    spec: StudySpec,
    predictions: dict[str, Prediction | None],
    finals: Sequence[tuple[float, ...]],
    best: int,
) -> float:
    """As `_chance`, drawing from the predictions of all metrics as if they were independent."""
    if any(prediction is None for prediction in predictions.values()):
        return 0.0  # a constraint that was never reported counts as violated
    draws = _draws([prediction for prediction in predictions.values() if prediction is not None])
    drawn = dict(zip(predictions, draws, strict=True))
    good = np.ones(2**_SAMPLES, dtype=bool)
    for constraint in spec.constraints:
        sign = metric_sign(spec, constraint.metric) or 1.0
        values = sign * drawn[constraint.metric]
        good &= values <= constraint.bound if constraint.relation == "<=" else values >= constraint.bound
    outcomes = np.stack([drawn[objective.metric] for objective in spec.objectives], axis=1)
    if len(spec.objectives) == 1:
        bar = sorted((values[0] for values in finals), reverse=True)[best - 1]
        return float((good & (outcomes[:, 0] > bar)).mean())
    front = np.array([point for point in finals if not any(dominates(other, point) for other in finals)])
    beaten = np.any(np.all(front[None] >= outcomes[:, None], axis=2), axis=1)
    return float((good & ~beaten).mean())


def _predict(
    spec: StudySpec, places: Sequence[int], name: str, measured: TrialRecord, begun: Sequence[TrialRecord]
) -> Prediction | None:
    sign = metric_sign(spec, name)
    curves = [metric_curve(record.curve, name, sign or 1.0) for record in begun]
    own = metric_curve(measured.curve, name, sign or 1.0)
    if not own or max(own) < places[0]:
        return None
    return CurveModel([curve for curve in curves if curve], places, improves=sign is not None).predict(own)


def _draws(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Draw from each prediction: the same quasi-random points every time, so that a decision can be repeated."""
    from scipy.special import stdtrit
    from scipy.stats import qmc

    points = qmc.Sobol(len(predictions), scramble=True, rng=np.random.default_rng(0)).random_base2(_SAMPLES)
    points = np.clip(points, 1e-6, 1 - 1e-6)
    return np.stack([p.mean + p.sd * stdtrit(p.freedom, points[:, place]) for place, p in enumerate(predictions)])
