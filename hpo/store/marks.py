"""Keep the marks of trials (`hpo.stopping.standing`), and count those of the other trials of a study.

The marks of a trial are written in the transaction that changes its record. A study that was made before there were
marks gets them when they are first needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, RowMapping, TextClause, text

from ..errors import UnusableStudyError
from ..results.outcome import settled
from ..spec import StudySpec
from ..spec.study import AshaStopping, CurvesStopping, HyperbandStopping
from ..stopping.curve_model import Curve
from ..stopping.decide import is_due
from ..stopping.pausing import Effort, are_all_begun, may_finish_one, pause_rung
from ..stopping.standing import COMPLETED, EPOCH, PEAK, has_marks, judge, marks_of
from ..stopping.study_curves import StudyCurves, Waiting
from ..trial import Decision, TrialRecord, TrialState
from . import study_curves
from .study_row import parsed
from .trials import curve_of, metrics_of
from .wire import later, prepared

_CHUNK: Final = 500
"""Trials that are read at once where the marks of a whole study are made."""

# A trial whose marks could not be made has one of the board `stale`: its row is locked, and the study's comes before.
_COMPLETE: Final = """
study.marked AND NOT EXISTS (SELECT FROM mark WHERE mark.study_id = study.id AND mark.board = 'stale')
""".strip()
_READ: Final = """
SELECT trial.id, trial.number, trial.state, trial.metrics, trial.attempt, trial.replicate_of, trial.origin,
       trial.study_id, {is_marked} AS marked, study.fault, study.uuid, study.spec::text AS spec,
       (SELECT COALESCE(jsonb_object_agg(step::text, measurement.metrics ORDER BY measurement.attempt), '{}')
        FROM measurement WHERE measurement.trial_id = trial.id) AS curve
FROM trial JOIN study ON study.id = trial.study_id
WHERE trial.id = ANY(:ids) {condition}
ORDER BY trial.id
""".replace("{is_marked}", _COMPLETE)
_RECORDS: Final = text(_READ.replace("{condition}", ""))
# Where there is no rule, curves are not read.
_WITH_RULE: Final = text(_READ.replace("{condition}", "AND study.spec #>> '{early_stopping,name}' <> 'none'"))
_WRITE: Final = text("""
WITH new AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:marks AS jsonb)) AS new (board text, place int, value float8, own float8)
), gone AS (
    DELETE FROM mark
    WHERE trial_id = :trial_id
      AND NOT EXISTS (SELECT FROM new WHERE new.board = mark.board AND new.place = mark.place)
)
INSERT INTO mark (study_id, trial_id, board, place, value, own)
SELECT :study_id, :trial_id, new.board, new.place, new.value, new.own FROM new
ON CONFLICT (trial_id, board, place) DO UPDATE SET value = excluded.value, own = excluded.own
WHERE mark.value <> excluded.value OR mark.own IS DISTINCT FROM excluded.own
""")
_LOCK: Final = text("SELECT id FROM trial WHERE study_id = :study_id ORDER BY id FOR NO KEY UPDATE")
_IS_MARKED: Final = text("SELECT {is_marked} FROM study WHERE id = :study_id".replace("{is_marked}", _COMPLETE))
_LOCK_STUDY: Final = text(f"{_IS_MARKED.text} FOR NO KEY UPDATE")
_MARKED: Final = text("UPDATE study SET marked = true WHERE id = :study_id")
_STALE: Final = text("""
INSERT INTO mark (study_id, trial_id, board, place, value)
SELECT study_id, id, 'stale', 0, 0 FROM trial WHERE id = ANY(:ids)
ON CONFLICT DO NOTHING
""")

_COUNTS: Final = text("""
SELECT (SELECT count(*) FROM (SELECT FROM mark WHERE study_id = :study_id AND board = 'completed' AND place = 0
                              AND trial_id <> :id LIMIT :most) AS found) AS completed,
       (SELECT count(*) FROM (SELECT FROM mark WHERE study_id = :study_id AND board = 'completed' AND place = 0
                              AND value >= 1 AND trial_id <> :id LIMIT :most) AS found) AS with_result
""")
_COUNT: Final = text("""
SELECT count(*) FROM (
    SELECT FROM mark WHERE study_id = :study_id AND board = :board AND place = 0 AND value >= :least AND trial_id <> :id
    LIMIT :most
) AS found
""")
_BEST: Final = text("""
SELECT value FROM mark WHERE study_id = :study_id AND board = :board AND place = 0 AND trial_id <> :id
ORDER BY value DESC LIMIT 1
""")
_ABOVE: Final = text("""
SELECT count(*) AS others, count(*) FILTER (WHERE value > :value) AS better
FROM mark WHERE study_id = :study_id AND board = :board AND place = :place AND trial_id <> :id
""")
_AROUND: Final = text("""
WITH there AS MATERIALIZED (
    SELECT count(*) AS others
    FROM mark WHERE study_id = :study_id AND board = :board AND place = :place AND trial_id <> :id
)
SELECT there.others, ARRAY(
    SELECT value FROM mark WHERE study_id = :study_id AND board = :board AND place = :place AND trial_id <> :id
    ORDER BY value
    OFFSET floor(GREATEST(there.others - 1, 0) * CAST(:share AS float8))::bigint LIMIT 2
) AS near
FROM there
""")
# One bar per rung, for all paused trials there: each counts among the trials at its rung, and is above itself in none.
_PROMOTABLE: Final = text("""
WITH rung AS MATERIALIZED (
    SELECT board, place, count(*) AS trials
    FROM mark WHERE study_id = :study_id AND board NOT IN ('completed', 'peak', 'epoch')
    GROUP BY board, place
), bar AS MATERIALIZED (
    SELECT rung.board, rung.place,
           (SELECT value FROM mark
            WHERE mark.study_id = :study_id AND mark.board = rung.board AND mark.place = rung.place
            ORDER BY value DESC OFFSET GREATEST(rung.trials / :reduction, 1) - 1 LIMIT 1) AS value
    FROM rung
), best AS MATERIALIZED (
    SELECT max(value) AS value FROM mark WHERE study_id = :study_id AND board = 'peak' AND place = 0
)
SELECT trial.id,
       EXISTS (SELECT FROM mark WHERE mark.trial_id = trial.id AND mark.own <> mark.value) AS is_special,
       EXISTS (SELECT FROM mark, best
               WHERE mark.trial_id = trial.id AND mark.board = 'peak' AND mark.own >= best.value)
       OR NOT EXISTS (SELECT FROM mark JOIN bar ON bar.board = mark.board AND bar.place = mark.place
                      WHERE mark.trial_id = trial.id AND mark.own < bar.value) AS is_allowed
FROM trial
WHERE trial.study_id = :study_id AND trial.state = 'paused' AND trial.replicate_of IS NULL
ORDER BY trial.number
""")


_HELD: Final = text("""
SELECT id FROM trial WHERE study_id = :study_id AND state = 'paused' AND replicate_of IS NULL ORDER BY number
""")
_UUID: Final = text("SELECT uuid FROM study WHERE id = :study_id")
_LEADING: Final = text("""
SELECT trial_id FROM mark
WHERE study_id = :study_id AND board = 'peak' AND place = 0 AND value = own
  AND value >= (SELECT max(value) FROM mark WHERE study_id = :study_id AND board = 'peak' AND place = 0)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A trial as the stopping rule sees it, with the spec of its study."""

    study_id: int
    study_uuid: UUID
    spec: StudySpec
    record: TrialRecord
    """Its number, state, curve and final metrics; it has no parameters."""
    is_marked: bool
    """Whether the marks of its study are complete."""
    fault: str | None
    """What is wrong with its study, as `study_fault` keeps it."""


class StoredRivals:
    """The marks of all trials of a study but one, in the store."""

    def __init__(self, connection: Connection, own: Own) -> None:
        self._connection = connection
        self._own = own
        self._values = {"study_id": own.study_id, "id": own.record.id}
        self._completed: dict[int, tuple[int, int]] = {}
        """How many are completed, and how many with a result, by the number from which on nobody asks."""

    def completed(self, *, most: int, with_result: bool = False) -> int:
        """Return how many are completed, or `most` if they are more; only those with a result if asked."""
        if most not in self._completed:
            found = self._execute(_COUNTS, most=most)
            self._completed[most] = int(found["completed"]), int(found["with_result"])
        return self._completed[most][with_result]

    def best(self) -> float | None:
        """Return the best value that any of them has shown; None before there is one."""
        found = prepared(self._connection, _BEST, {**self._values, "board": PEAK}).scalar_one_or_none()
        return None if found is None else float(found)

    def above(self, board: str, place: int, value: float) -> tuple[int, int]:
        """Return how many have a mark there, and how many of these are greater than `value`."""
        found = self._execute(_ABOVE, board=board, place=place, value=value)
        return int(found["others"]), int(found["better"])

    def around(self, place: int, share: float) -> tuple[int, Sequence[float]]:
        """Return how many values there are after epoch `place`, and those that the percentile lies between."""
        found = self._execute(_AROUND, board=EPOCH, place=place, share=share)
        return int(found["others"]), [float(value) for value in found["near"]]

    def curves(self) -> StudyCurves:
        """Return the curves of all trials of the study."""
        own = self._own
        return study_curves.read(self._connection, own.study_id, own.study_uuid, own.spec)

    def effort(self, rung: int) -> Effort:
        """Return what was spent on the others where trials pause at `rung`."""
        own = self._own
        return study_curves.effort(self._connection, own.study_id, own.spec, rung, but=own.record.id)

    def paused_ends(self, own: Curve) -> tuple[float, Sequence[tuple[float, int]]]:
        """Return the expected end of a curve, and those of all other paused trials with their numbers."""
        curves, record = self.curves(), self._own.record
        found = study_curves.waiting(self._connection, self._own.study_id, self._own.spec, curves)
        others = [trial for trial in found if trial.number != record.number]
        asked = Waiting(key=(record.id, record.attempt, max(own)), number=record.number, curve=own)
        *ends, own_end = curves.expected_ends([*others, asked])
        return own_end, [(end, trial.number) for end, trial in zip(ends, others, strict=True)]

    def _execute(self, query: TextClause, **values: Any) -> RowMapping:
        return prepared(self._connection, query, {**self._values, **values}).mappings().one()


def own(connection: Connection, trial_id: int) -> Own | None:
    """Return a trial as the stopping rule sees it; None if it was deleted."""
    return next(_read(connection, _RECORDS, [trial_id]), None)


def refresh(connection: Connection, trial_ids: Sequence[int]) -> list[Own]:
    """Write the marks of trials whose records have just changed, and return those whose rule may have some.

    The rows of the trials must be locked. Without a spec that can be read there are none: what was measured counts
    nevertheless, and the study is marked anew once it can. The row of the study is not touched: whoever locks both
    locks that first.
    """
    try:
        found = list(_read(connection, _WITH_RULE, trial_ids))
    except UnusableStudyError:
        connection.execute(_STALE, {"ids": list(trial_ids)})
        return []
    for one in found:
        if has_marks(one.spec):
            _write(connection, one)
    return found


def keep(connection: Connection, row: RowMapping) -> Own | None:
    """Write the marks of a trial whose record has just changed, as a statement of the lifecycle has returned it.

    Return the trial as its rule sees it; None without a spec that can be read, as in `refresh`.
    """
    try:
        found = _own(row)
    except UnusableStudyError:
        connection.execute(_STALE, {"ids": [row["id"]]})
        return None
    if has_marks(found.spec):
        _write(connection, found)
    return found


def complete(connection: Connection, study_id: int) -> None:
    """Write the marks of all trials of a study where some were never made; nothing where they are kept."""
    for query in (_IS_MARKED, _LOCK_STUDY):  # of two that find them missing, one writes them
        if connection.execute(query, {"study_id": study_id}).scalar_one_or_none() is not False:
            return
    # What is read after the locks is what is true until the commit.
    ids = list(connection.execute(_LOCK, {"study_id": study_id}).scalars())
    for start in range(0, len(ids), _CHUNK):
        refresh(connection, ids[start : start + _CHUNK])
    connection.execute(_MARKED, {"study_id": study_id})


def promotable(connection: Connection, study_id: int, spec: StudySpec) -> list[int]:
    """Return the ids of the paused trials that the rule would let continue by what is known now, by number.

    The marks of the study must be complete. A rule that pauses no trial may have taken the place of one that did.
    """
    rule = spec.early_stopping
    if isinstance(rule, CurvesStopping):
        return _resumable(connection, study_id, spec, rule)
    if not isinstance(rule, AshaStopping | HyperbandStopping):
        ids = connection.execute(_HELD, {"study_id": study_id}).scalars().all()
        return [trial_id for trial_id, decision in _judged(connection, spec, ids) if decision is Decision.CONTINUE]
    is_asked = _is_asked(connection, study_id, rule.startup_trials)
    rows = connection.execute(_PROMOTABLE, {"study_id": study_id, "reduction": rule.reduction}).all()
    # A mean over the last epochs leaves out other epochs where the trial itself is judged: it is compared by itself.
    special = [row.id for row in rows if row.is_special and is_asked]
    known = {trial_id: decision is Decision.CONTINUE for trial_id, decision in _judged(connection, spec, special)}
    return [row.id for row in rows if not is_asked or known.get(row.id, row.is_allowed)]


def _judged(connection: Connection, spec: StudySpec, trial_ids: Sequence[int]) -> Iterator[tuple[int, Decision]]:
    for found in _read(connection, _RECORDS, trial_ids):
        yield found.record.id, judge(spec, found.record, StoredRivals(connection, found))


def _resumable(connection: Connection, study_id: int, spec: StudySpec, rule: CurvesStopping) -> list[int]:
    """Return the ids of the trials that continue under the rule `curves`; mostly none, and no curve is read."""
    effort = study_curves.effort(connection, study_id, spec, pause_rung(spec, rule))
    is_last = are_all_begun(spec, effort)
    if not is_last and not may_finish_one(spec, rule, effort):
        return []
    uuid = connection.execute(_UUID, {"study_id": study_id}).scalar_one()
    curves = study_curves.read(connection, study_id, uuid, spec)
    found = study_curves.waiting(connection, study_id, spec, curves)
    ends = {trial.key: end for trial, end in zip(found, curves.expected_ends(found), strict=True)}
    leading = set(connection.execute(_LEADING, {"study_id": study_id}).scalars())
    is_asked = _is_asked(connection, study_id, rule.startup_trials)
    asked = [trial for trial in found if is_asked and _is_due(spec, trial, curves.curve_of(trial))]
    behind = {trial.key for trial, is_out in zip(asked, curves.are_hopeless(asked), strict=True) if is_out}
    candidates = [trial for trial in found if trial.key not in behind or trial.key[0] in leading]
    if is_last or not candidates:
        return [trial.key[0] for trial in candidates]
    return [max(candidates, key=lambda trial: (ends[trial.key], -trial.number)).key[0]]


def _is_due(spec: StudySpec, trial: Waiting, curve: Curve) -> bool:
    """Return whether the rule may stop a paused trial, as far as its own curve says."""
    trial_id, attempt, epochs_done = trial.key
    metric = spec.objectives[0].metric
    record = TrialRecord(
        id=trial_id,
        number=trial.number,
        state=TrialState.PAUSED,
        params={},
        curve={step: {metric: value} for step, value in curve.items()},
        attempt=attempt,
    )
    return record.last_step == epochs_done and is_due(spec, record, record)


def _is_asked(connection: Connection, study_id: int, startup_trials: int) -> bool:
    values = {"study_id": study_id, "id": 0, "board": COMPLETED, "least": 0.0, "most": startup_trials}
    return bool(connection.execute(_COUNT, values).scalar_one() >= startup_trials)


def _write(connection: Connection, found: Own) -> None:
    marks = json.dumps([asdict(mark) for mark in marks_of(found.spec, found.record)], allow_nan=False)
    later(connection, _WRITE, {"study_id": found.study_id, "trial_id": found.record.id, "marks": marks})


def _read(connection: Connection, query: TextClause, trial_ids: Sequence[int]) -> Iterator[Own]:
    if not trial_ids:
        return
    for row in connection.execute(query, {"ids": list(trial_ids)}).mappings():
        yield _own(row)


def _own(row: RowMapping) -> Own:
    try:
        spec = parsed(row["spec"])
    except ValueError as error:
        raise UnusableStudyError(study_id=row["study_id"]) from error
    record = TrialRecord(
        id=row["id"],
        number=row["number"],
        state=TrialState(row["state"]),
        params={},
        curve=curve_of(row["curve"]),
        metrics=metrics_of(row["metrics"]),
        attempt=row["attempt"],
        replicate_of=row["replicate_of"],
        origin=row.get("origin"),
    )
    return Own(
        study_id=row["study_id"],
        study_uuid=row["uuid"],
        spec=spec,
        record=settled(record, spec.last_epochs),
        is_marked=row["marked"],
        fault=row["fault"],
    )
