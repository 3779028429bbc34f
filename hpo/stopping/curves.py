"""The stopping rule `curves`: stop a trial that is unlikely to end among the best, by a model of the study's curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..results.outcome import final_metrics, is_feasible, metric_curve, metric_sign
from ..results.ranking import dominates, gains, scores
from ..spec import StudySpec
from ..spec.study import CurvesStopping
from ..trial import TrialRecord, TrialState
from .curve_model import CurveModel, Prediction, rungs

_SPARED_SHARE = 0.1
"""Nothing is stopped in this first share of its epochs, which save little and where slow starters look hopeless."""
_LOG2_DRAWS = 10
"""Logarithm to base 2 of the number of draws where several predictions decide together."""


def hopeless(
    spec: StudySpec, rule: CurvesStopping, asked: Sequence[TrialRecord], records: Sequence[TrialRecord]
) -> set[int]:
    """Return the ids of those `asked` that are not among the best at their last step and improbable to end among them.

    The best are `rule.protect` of the trials, at least one; improbable is less than `rule.probability`. While fewer
    than its inverse have begun, the chance that any trial is the best of all is taken instead. The curves of `asked`
    are finite in the objectives.
    """
    begun = [record for record in records if record.curve]
    best = max(1, math.ceil(rule.protect * len(begun)))
    behind = [record for record in asked if not _is_among_best(spec, record, begun, best)]
    limit = max(rule.probability, 1 / max(len(begun), 1))
    chances = _chances(spec, rule, behind, begun, best)
    return {record.id for record, chance in zip(behind, chances, strict=True) if chance < limit}


def expected_ends(
    spec: StudySpec, rule: CurvesStopping, asked: Sequence[TrialRecord], records: Sequence[TrialRecord]
) -> list[float]:
    """Return the expected last values of the first objective, turned so that more is better."""
    places = places_of(spec, rule)
    found = _predict(spec, places, spec.objectives[0].metric, asked, records)
    return [-math.inf if end is None else end.mean for end in found]


def places_of(spec: StudySpec, rule: CurvesStopping) -> tuple[int, ...]:
    """Return the rungs at which the rule reads curves and decides, the last epoch among them."""
    return rungs(max(rule.min_epochs, math.ceil(_SPARED_SHARE * spec.task.epochs)), spec.task.epochs)


def is_at_rung(spec: StudySpec, rule: CurvesStopping, measured: TrialRecord) -> bool:
    """Return whether the last report of a trial was the first at or after a rung; only then is the rule asked."""
    *_, before, last = [0, 0, *sorted(measured.curve)]
    return any(before < place <= last for place in places_of(spec, rule)[:-1])


def _is_among_best(spec: StudySpec, asked: TrialRecord, begun: Sequence[TrialRecord], best: int) -> bool:
    step = max(asked.curve)
    rows = {record.id: record.curve[step] for record in (*begun, asked) if step in record.curve}
    scored = scores(spec, rows)
    if asked.id not in scored:
        return False
    return sum(score > scored[asked.id] for score in scored.values()) < best


def _chances(
    spec: StudySpec, rule: CurvesStopping, asked: Sequence[TrialRecord], begun: Sequence[TrialRecord], best: int
) -> list[float]:
    """Return the probabilities to end feasible and as good as the best completed trials; 1 before there are any.

    With several objectives: that no outcome of a completed trial dominates the trial's own.
    """
    done = [
        record
        for record in begun
        if record.state is TrialState.COMPLETED
        and is_feasible(spec, final_metrics(record))
        and gains(spec, final_metrics(record)) is not None
        and (record.last_step or 0) >= places_of(spec, rule)[0]
    ]
    if len(done) < best or not asked:
        return [1.0] * len(asked)
    metrics = [objective.metric for objective in spec.objectives] + [c.metric for c in spec.constraints]
    predictions = {
        name: _predict(spec, places_of(spec, rule), name, [*asked, *done], begun) for name in dict.fromkeys(metrics)
    }
    # The outcomes of completed trials are predictions too: the luckiest of many noisy values is no fair bar.
    objectives = [predictions[objective.metric][len(asked) :] for objective in spec.objectives]
    finals = [tuple(end for end in ends if end is not None) for ends in zip(*objectives, strict=True)]
    if len(spec.objectives) == 1 and not spec.constraints:
        (ends,) = predictions.values()
        bar = sorted((final for (final,) in finals), key=lambda end: -end.mean)[best - 1]
        return [0.0 if end is None else end.probability_beyond(bar) for end in ends[: len(asked)]]
    means = [tuple(end.mean for end in final) for final in finals]
    each = ({name: ends[place] for name, ends in predictions.items()} for place in range(len(asked)))
    return [_joint_chance(spec, ends, means, best) for ends in each]


def _joint_chance(
    spec: StudySpec,
    predictions: dict[str, Prediction | None],
    finals: Sequence[tuple[float, ...]],
    best: int,
) -> float:
    """As `_chances` of one trial, drawing from the predictions of all metrics as if they were independent."""
    if any(prediction is None for prediction in predictions.values()):
        return 0.0  # a constraint that was never reported counts as violated
    draws = _draws([prediction for prediction in predictions.values() if prediction is not None])
    drawn = dict(zip(predictions, draws, strict=True))
    good = np.ones(2**_LOG2_DRAWS, dtype=bool)
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
    spec: StudySpec, places: Sequence[int], name: str, asked: Sequence[TrialRecord], records: Sequence[TrialRecord]
) -> list[Prediction | None]:
    """Predict the last value of a metric; None for trials that have not shown it."""
    sign = metric_sign(spec, name)
    taught = [metric_curve(record.curve, name, sign or 1.0) for record in records]
    model = CurveModel([curve for curve in taught if curve], places, improves=sign is not None, on_these_clips=True)
    curves = [metric_curve(record.curve, name, sign or 1.0) for record in asked]
    shown = [bool(curve) and max(curve) >= places[0] for curve in curves]
    ends = iter(model.predict_all([curve for curve, is_shown in zip(curves, shown, strict=True) if is_shown]))
    return [next(ends) if is_shown else None for is_shown in shown]


def _draws(predictions: Sequence[Prediction]) -> Array:
    """Draw from each prediction: the same quasi-random points every time, so that a decision can be repeated."""
    from scipy.special import stdtrit
    from scipy.stats import qmc

    points = qmc.Sobol(len(predictions), scramble=True, rng=np.random.default_rng(0)).random_base2(_LOG2_DRAWS)
    points = np.clip(points, 1e-6, 1 - 1e-6)
    return np.stack([p.mean + p.sd * stdtrit(p.freedom, points[:, place]) for place, p in enumerate(predictions)])
