"""The curves of a study for the stopping rule `curves`, kept until the study has grown by a small share."""

from __future__ import annotations

import math
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from ..results.outcome import gain
from ..spec import StudySpec
from ..spec.study import CurvesStopping
from ..stopping.curve_model import Curve
from ..stopping.curves import places_of
from ..stopping.study_curves import StudyCurves

EXACT_TRIALS: Final = 50
"""Up to so many trials, every decision is made from what is known at its moment."""
GROWTH: Final = 0.02
"""In a larger study, from what was known when it had at most this share of epochs less."""
_MOST_STUDIES: Final = 16

_SIZE: Final = text("""
SELECT count(*) FILTER (WHERE epochs_done > 0) AS begun, COALESCE(sum(epochs_done), 0) AS epochs
FROM trial WHERE study_id = :study_id AND replicate_of IS NULL
""")
_CURVES: Final = text("""
SELECT trial.state = 'completed' AS is_completed, trial.metrics ? :metric AS has_result, curve.steps, curve.values
FROM trial
CROSS JOIN LATERAL (
    SELECT string_agg(int4send(step), ''::bytea ORDER BY step, attempt) AS steps,
           string_agg(float8send(COALESCE((metrics ->> :metric)::float8, 'NaN')), ''::bytea ORDER BY step, attempt)
               AS values
    FROM measurement WHERE measurement.trial_id = trial.id
) AS curve
WHERE trial.study_id = :study_id AND trial.replicate_of IS NULL AND trial.epochs_done > 0
ORDER BY trial.number
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    epochs: int
    curves: StudyCurves


_kept: OrderedDict[UUID, _Kept] = OrderedDict()
_lock = threading.Lock()


def read(connection: Connection, study_id: int, study_uuid: UUID, spec: StudySpec) -> StudyCurves:
    """Return the curves of a study as they are, or as they were a little before (`GROWTH`)."""
    size = connection.execute(_SIZE, {"study_id": study_id}).one()
    with _lock:
        known = _kept.get(study_uuid)
        if known is not None and size.begun > EXACT_TRIALS and size.epochs <= known.epochs * (1 + GROWTH):
            _kept.move_to_end(study_uuid)
            return known.curves
    found = _Kept(epochs=int(size.epochs), curves=_read(connection, study_id, spec))
    with _lock:
        _kept[study_uuid] = found
        while len(_kept) > _MOST_STUDIES:
            _kept.popitem(last=False)
    return found.curves


def _read(connection: Connection, study_id: int, spec: StudySpec) -> StudyCurves:
    rule, objective = spec.early_stopping, spec.objectives[0]
    if not isinstance(rule, CurvesStopping):
        raise ValueError(f"the rule {rule.name} has no model of curves")
    first, sign = places_of(spec, rule)[0], gain(objective, 1.0)
    rows = connection.execute(_CURVES, {"study_id": study_id, "metric": objective.metric}).all()
    curves: list[Curve] = []
    done: list[bool] = []
    for row in rows:
        steps = struct.unpack(f">{len(row.steps) // 4}i", row.steps)
        values = struct.unpack(f">{len(row.steps) // 4}d", row.values)
        last = dict(zip(steps, values, strict=True))  # of two attempts that reported a step, the later counts
        curve = {step: sign * value for step, value in last.items() if not math.isnan(value)}
        if curve:
            is_mean = objective.last_epochs > 1 and max(last) in curve  # over the last epochs, whatever the result says
            curves.append(curve)
            done.append(row.is_completed and (row.has_result or is_mean) and max(curve) >= first)
    return StudyCurves(spec, rule, curves, done, begun=len(rows))
