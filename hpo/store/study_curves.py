"""The curves of a study for the stopping rule `curves`, kept until the study has grown by a small share."""

from __future__ import annotations

import math
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

from ..results.outcome import gain
from ..spec import StudySpec
from ..spec.study import CurvesStopping
from ..stopping.curve_model import Curve
from ..stopping.curves import places_of
from ..stopping.pausing import Effort
from ..stopping.study_curves import StudyCurves, Waiting

EXACT_TRIALS: Final = 50
"""Up to so many trials, every decision is made from what is known at its moment."""
GROWTH: Final = 0.02
"""In a larger study, from what was known when it had at most this share of epochs less."""
_MOST_STUDIES: Final = 16

_SIZE: Final = text("""
SELECT count(*) FILTER (WHERE epochs_done > 0) AS begun, COALESCE(sum(epochs_done), 0) AS epochs
FROM trial WHERE study_id = :study_id AND replicate_of IS NULL AND origin IS NULL AND state <> 'withdrawn'
""")
# The part `{which}` says of which trials.
_READ: Final = """
SELECT trial.id, trial.number, trial.state = 'completed' AS is_completed, trial.metrics ? :metric AS has_result,
       curve.steps, curve.values
FROM trial
CROSS JOIN LATERAL (
    SELECT string_agg(int4send(step), ''::bytea ORDER BY step, attempt) AS steps,
           string_agg(float8send(COALESCE((metrics ->> :metric)::float8, 'NaN')), ''::bytea ORDER BY step, attempt)
               AS values
    FROM measurement WHERE measurement.trial_id = trial.id
) AS curve
WHERE {which}
ORDER BY trial.number
"""
_CURVES: Final = text(
    _READ.format(
        which="trial.study_id = :study_id AND trial.replicate_of IS NULL AND trial.origin IS NULL"
        " AND trial.state <> 'withdrawn' AND trial.epochs_done > 0"
    )
)
_SOME_CURVES: Final = text(_READ.format(which="trial.id = ANY(:ids)"))
_PAUSED: Final = text("""
SELECT id, number, attempt, epochs_done FROM trial
WHERE study_id = :study_id AND state = 'paused' AND replicate_of IS NULL
ORDER BY number
""")
_EFFORT: Final = text("""
SELECT count(*) FILTER (WHERE epochs_done > 0 OR state = 'failed') AS begun,
       COALESCE(sum(LEAST(epochs_done, :rung)), 0) AS explored,
       COALESCE(sum(GREATEST(CASE WHEN state = 'running' AND epochs_done >= :rung THEN :epochs ELSE epochs_done END
                             - :rung, 0)), 0) AS finished
FROM trial
WHERE study_id = :study_id AND replicate_of IS NULL AND origin IS NULL AND state <> 'withdrawn'
  AND id IS DISTINCT FROM :but
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


def effort(connection: Connection, study_id: int, spec: StudySpec, rung: int, *, but: int | None = None) -> Effort:
    """Return what was spent on the trials of a study, one of them left out, where trials pause at `rung`."""
    values = {"study_id": study_id, "rung": rung, "epochs": spec.task.epochs, "but": but}
    row = connection.execute(_EFFORT, values).one()
    return Effort(begun=row.begun, explored=row.explored, finished=row.finished)


def waiting(connection: Connection, study_id: int, spec: StudySpec, curves: StudyCurves) -> list[Waiting]:
    """Return the paused trials of a study by number, with those of their curves that `curves` has not seen."""
    rows = connection.execute(_PAUSED, {"study_id": study_id}).all()
    keys = {row.id: (row.id, row.attempt, row.epochs_done) for row in rows}
    new = [trial_id for trial_id, key in keys.items() if not curves.knows(key)]
    values = {"ids": new, "metric": spec.objectives[0].metric}
    read = {row.id: _finite(spec, _values(row)) for row in connection.execute(_SOME_CURVES, values)} if new else {}
    return [Waiting(key=keys[row.id], number=row.number, curve=read.get(row.id, {})) for row in rows]


def _values(row: Row[Any]) -> Curve:
    """Return what a trial has measured; of two attempts that reported a step, the later counts."""
    if row.steps is None:
        return {}
    steps = struct.unpack(f">{len(row.steps) // 4}i", row.steps)
    return dict(zip(steps, struct.unpack(f">{len(row.steps) // 4}d", row.values), strict=True))


def _finite(spec: StudySpec, values: Curve) -> Curve:
    sign = gain(spec.objectives[0], 1.0)
    return {step: sign * value for step, value in values.items() if not math.isnan(value)}


def _read(connection: Connection, study_id: int, spec: StudySpec) -> StudyCurves:
    rule, objective = spec.early_stopping, spec.objectives[0]
    if not isinstance(rule, CurvesStopping):
        raise ValueError(f"the rule {rule.name} has no model of curves")
    first = places_of(spec, rule)[0]
    rows = connection.execute(_CURVES, {"study_id": study_id, "metric": objective.metric}).all()
    curves: list[Curve] = []
    done: list[bool] = []
    for row in rows:
        last = _values(row)
        curve = _finite(spec, last)
        if curve:
            is_mean = objective.last_epochs > 1 and max(last) in curve  # over the last epochs, whatever the result says
            curves.append(curve)
            done.append(row.is_completed and (row.has_result or is_mean) and max(curve) >= first)
    return StudyCurves(spec, rule, curves, done, begun=len(rows))
