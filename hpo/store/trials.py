"""Read trials. Nothing here changes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select, text

from ..errors import NotFoundError
from ..results import ranking
from ..results.ranking import result_of
from ..trial import RESULT_STATES, FailureKind, Metrics, TrialRecord, TrialState
from .study_row import StudyRow
from .tables import trial
from .workers import ALIVE_SECONDS

_READ: Final = """
SELECT trial.*, COALESCE(curve.steps, '{{}}') AS curve
FROM trial
LEFT JOIN (
    SELECT measurement.trial_id, jsonb_object_agg(step::text, measurement.metrics ORDER BY measurement.attempt) AS steps
    FROM measurement JOIN trial ON trial.id = measurement.trial_id
    WHERE {where}
    GROUP BY measurement.trial_id
) AS curve ON curve.trial_id = trial.id
WHERE {where}
ORDER BY trial.study_id, trial.number
"""
# Of two attempts that reported a step, jsonb_object_agg keeps the later.
_OF_STUDY: Final = text(_READ.format(where="trial.study_id = :study_id"))
_BY_NUMBER: Final = text(_READ.format(where="trial.study_id = :study_id AND trial.number = :number"))
_BY_IDS: Final = text(_READ.format(where="trial.id = ANY(:ids)"))
# As in `results.outcome.final_metrics`, the last step counts where a trial has no final metrics.
_RESULTS: Final = text("""
SELECT number, state,
       COALESCE(NULLIF(metrics, '{}'),
                (SELECT measurement.metrics FROM measurement WHERE measurement.trial_id = trial.id
                 ORDER BY measurement.step DESC, measurement.attempt DESC LIMIT 1)) AS metrics
FROM trial
WHERE study_id = :study_id AND state = ANY(:states)
""")
_DEMAND: Final = text("""
SELECT count(*)
FROM worker, study
WHERE study.id = :study_id
  AND worker.last_seen > clock_timestamp() - make_interval(secs => :seconds)
  AND (worker.study IS NULL OR worker.study = study.name)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnvironment:
    """Where and with what a trial ran, as its last worker said."""

    checkpoint: str | None
    """Path on the worker's machine."""
    dataset_version: str | None
    environment: dict[str, Any]
    """Versions, device and thread count."""


def records(connection: Connection, study_id: int) -> list[TrialRecord]:
    """Read all trials of a study with their curves, withdrawn ones included, by number."""
    return [_record(row) for row in connection.execute(_OF_STUDY, {"study_id": study_id}).mappings()]


def record(connection: Connection, trial_id: int) -> TrialRecord:
    """Read one trial.

    Raises:
        NotFoundError: there is none of that id.
    """
    found = by_ids(connection, [trial_id])
    if not found:
        raise NotFoundError(f"there is no trial {trial_id}")
    return found[0]


def get(connection: Connection, study_id: int, number: int) -> TrialRecord:
    """Read the trial of a study by its number.

    Raises:
        NotFoundError: the study has none of that number.
    """
    row = connection.execute(_BY_NUMBER, {"study_id": study_id, "number": number}).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"the study has no trial number {number}")
    return _record(row)


def by_ids(connection: Connection, trial_ids: Sequence[int]) -> list[TrialRecord]:
    """Read the trials of these ids, by study and number; ids that do not exist are left out."""
    if not trial_ids:
        return []
    return [_record(row) for row in connection.execute(_BY_IDS, {"ids": list(trial_ids)}).mappings()]


def best(connection: Connection, study: StudyRow) -> TrialRecord | None:
    """Return the best trial of a study by `results.ranking.best`, None where there is none yet."""
    results = [
        result_of(study.spec, number=row.number, state=TrialState(row.state), metrics=_metrics(row.metrics) or {})
        for row in connection.execute(_RESULTS, {"study_id": study.id, "states": list(RESULT_STATES)})
    ]
    found = ranking.best(results)
    return None if found is None else get(connection, study.id, found.number)


def environment_of(connection: Connection, trial_id: int) -> RunEnvironment:
    """Return where and with what a trial ran.

    Raises:
        NotFoundError: there is no such trial.
    """
    query = select(trial.c.checkpoint, trial.c.dataset_version, trial.c.environment).where(trial.c.id == trial_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no trial {trial_id}")
    return RunEnvironment(**row)


def demand(connection: Connection, study_id: int) -> int:
    """Count the workers that could ask for a trial of this study soon: those heard of within the last minute."""
    return int(connection.execute(_DEMAND, {"study_id": study_id, "seconds": ALIVE_SECONDS}).scalar_one())


def _metrics(stored: dict[str, Any] | None) -> Metrics | None:
    # A large float is a whole number in JSON as Postgres writes it.
    return None if stored is None else {name: float(value) for name, value in stored.items()}


def _record(row: RowMapping) -> TrialRecord:
    curve = {int(step): _metrics(metrics) or {} for step, metrics in row["curve"].items()}
    kind: str | None = row["failure_kind"]
    finished: datetime | None = row["finished_at"]
    return TrialRecord(
        id=row["id"],
        number=row["number"],
        state=TrialState(row["state"]),
        params=row["params"],
        curve=dict(sorted(curve.items())),
        metrics=_metrics(row["metrics"]),
        attempt=row["attempt"],
        failure_kind=None if kind is None else FailureKind(kind),
        failure_message=row["failure_message"],
        generator=row["generator"],
        predicted_mean=row["predicted_mean"],
        predicted_sd=row["predicted_sd"],
        predicted_feasibility=row["predicted_feasibility"],
        worker=row["lease_worker"],
        epochs_done=row["epochs_done"],
        gpu_seconds=row["gpu_seconds"],
        peak_memory_bytes=row["peak_memory_bytes"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=finished,
    )
