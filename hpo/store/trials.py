"""Read trials. Nothing here changes one."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select, text

from ..errors import NotFoundError
from ..results.outcome import settled
from ..trial import MACHINE_FAULTS, FailureKind, Metrics, TrialRecord, TrialState
from .tables import trial
from .wire import prepared
from .workers import ALIVE_SECONDS

IS_LOSS: Final = """
attempt.ended_as IN ('crashed', 'expired') AND (attempt.fault IS NULL OR attempt.fault NOT IN (MACHINES))
""".strip().replace("MACHINES", ", ".join(f"'{fault}'" for fault in sorted(MACHINE_FAULTS)))
"""Whether the row `attempt` ended because it lost its worker, which no machine is known to be to blame for."""
_LOST_ON: Final = f"""
       (SELECT COALESCE(array_agg(attempt.worker ORDER BY attempt.attempt), '{{}}') FROM attempt
        WHERE attempt.trial_id = trial.id AND {IS_LOSS})
"""  # noqa: S608 - a constant
_READ: Final = """
SELECT trial.*, COALESCE(curve.steps, '{{}}') AS curve, study.spec -> 'objectives' AS objectives, {lost_on} AS lost_on,
       present.progress, present.progress_at
FROM trial
JOIN study ON study.id = trial.study_id
LEFT JOIN attempt AS present
    ON trial.state = 'running' AND present.trial_id = trial.id AND present.attempt = trial.attempt
LEFT JOIN (
    SELECT measurement.trial_id, jsonb_object_agg(step::text, measurement.metrics ORDER BY measurement.attempt) AS steps
    FROM measurement JOIN trial ON trial.id = measurement.trial_id
    WHERE {where}
    GROUP BY measurement.trial_id
) AS curve ON curve.trial_id = trial.id
WHERE {where}
ORDER BY trial.study_id, trial.number
"""


def _read(*, where: str) -> str:
    return _READ.format(where=where, lost_on=_LOST_ON)


# Of two attempts that reported a step, jsonb_object_agg keeps the later.
_OF_STUDY: Final = text(_read(where="trial.study_id = :study_id"))
_OUTLINES: Final = text("""
SELECT trial.*, '{}'::jsonb AS curve, study.spec -> 'objectives' AS objectives, ARRAY[]::text[] AS lost_on,
       NULL::jsonb AS progress, NULL::timestamptz AS progress_at
FROM trial
JOIN study ON study.id = trial.study_id
WHERE trial.study_id = :study_id
ORDER BY trial.number
""")
# The last step alone, or as many as the final values are means over; the curve is not read.
_PAGE: Final = text(
    """
SELECT trial.*, COALESCE(ends.steps, '{}') AS curve, study.spec -> 'objectives' AS objectives, LOST_ON AS lost_on,
       present.progress, present.progress_at
FROM trial
JOIN study ON study.id = trial.study_id
LEFT JOIN attempt AS present
    ON trial.state = 'running' AND present.trial_id = trial.id AND present.attempt = trial.attempt
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(step::text, metrics) AS steps
    FROM (SELECT DISTINCT ON (step) step, metrics FROM measurement WHERE measurement.trial_id = trial.id
          ORDER BY step DESC, measurement.attempt DESC
          LIMIT (SELECT max(COALESCE((objective ->> 'last_epochs')::int, 1))
                 FROM jsonb_array_elements(study.spec -> 'objectives') AS objective)) AS last
) AS ends
WHERE trial.study_id = :study_id AND trial.number > :after
  AND (CAST(:states AS text[]) IS NULL OR trial.state = ANY(:states))
ORDER BY trial.number
LIMIT :limit
""".replace("LOST_ON", _LOST_ON)
)
_CURVES: Final = text("""
SELECT trial.number, trial.state, curve.steps, curve.values
FROM trial
CROSS JOIN LATERAL (
    SELECT string_agg(int4send(step), ''::bytea ORDER BY step, attempt) AS steps,
           string_agg(float8send((metrics ->> :metric)::float8), ''::bytea ORDER BY step, attempt) AS values
    FROM measurement
    WHERE measurement.trial_id = trial.id AND metrics ? :metric
      AND (step % :every = 0 OR step = 1 OR step = trial.epochs_done)
) AS curve
WHERE trial.study_id = :study_id AND trial.state <> 'withdrawn' AND curve.steps IS NOT NULL
ORDER BY trial.number
""")
_BY_NUMBER: Final = text(_read(where="trial.study_id = :study_id AND trial.number = :number"))
_BY_IDS: Final = text(_read(where="trial.id = ANY(:ids)"))
_RUNNING: Final = text("""
SELECT trial.number, attempt.worker, attempt.progress, attempt.progress_at
FROM trial JOIN attempt ON attempt.trial_id = trial.id AND attempt.attempt = trial.attempt
WHERE trial.study_id = :study_id AND trial.state = 'running' AND attempt.progress IS NOT NULL
ORDER BY trial.number
""")
_DEMAND: Final = text("""
SELECT count(*)
FROM worker, study
WHERE study.id = :study_id
  AND worker.last_seen > clock_timestamp() - make_interval(secs => :seconds)
  AND worker.quarantined_at IS NULL
  AND NOT EXISTS (SELECT FROM host_quarantine AS sick WHERE sick.host = worker.host)
  AND (worker.study IS NULL OR worker.study = study.name)
  AND study.task_kind = ANY (worker.task_kinds) AND worker.gpus >= study.gpus AND worker.nodes = study.nodes
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTrial:
    """How far a running trial is, as its worker said at `progress_at`."""

    number: int
    worker: str
    progress: Mapping[str, Any]
    progress_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnvironment:
    """Where and with what a trial ran, as its last worker said."""

    checkpoint: str | None
    """Path on the worker's machine."""
    dataset_version: str | None
    environment: dict[str, Any]
    """Versions, device and thread count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCurve:
    """One metric of one trial over the epochs."""

    number: int
    state: TrialState
    steps: list[int]
    values: list[float]


def records(connection: Connection, study_id: int) -> list[TrialRecord]:
    """Read all trials of a study with their curves, withdrawn ones included, by number."""
    return [from_row(row) for row in connection.execute(_OF_STUDY, {"study_id": study_id}).mappings()]


def outlines(connection: Connection, study_id: int) -> list[TrialRecord]:
    """Read all trials of a study as `records` does, but without curves, lost attempts and progress, which take long."""
    return [from_row(row) for row in connection.execute(_OUTLINES, {"study_id": study_id}).mappings()]


def page(
    connection: Connection, study_id: int, *, after: int, states: Sequence[TrialState] | None, limit: int
) -> list[TrialRecord]:
    """Read the next trials of a study by number, as `records` does, but of each curve the last steps alone.

    Args:
        after: only trials with a greater number.
        states: only trials in one of these; None for all.
    """
    values = {"study_id": study_id, "after": after, "limit": limit, "states": [*states] if states else None}
    return [from_row(row) for row in connection.execute(_PAGE, values).mappings()]


def metric_curves(connection: Connection, study_id: int, metric: str, *, every: int = 1) -> list[MetricCurve]:
    """Read one metric of all trials of a study that have reported it, by number.

    Args:
        every: only the steps that it divides, the first and the last one of a trial.
    """
    values = {"study_id": study_id, "metric": metric, "every": every}
    found = []
    for row in connection.execute(_CURVES, values):
        steps = struct.unpack(f">{len(row.steps) // 4}i", row.steps)
        shown = struct.unpack(f">{len(row.steps) // 4}d", row.values)
        # Of two attempts that reported a step, the later counts.
        points = dict(zip(steps, shown, strict=True))
        curve = MetricCurve(number=row.number, state=TrialState(row.state), steps=[*points], values=[*points.values()])
        found.append(curve)
    return found


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
    return from_row(row)


def by_ids(connection: Connection, trial_ids: Sequence[int]) -> list[TrialRecord]:
    """Read the trials of these ids, by study and number; ids that do not exist are left out."""
    if not trial_ids:
        return []
    return [from_row(row) for row in prepared(connection, _BY_IDS, {"ids": list(trial_ids)}).mappings()]


def study_of(connection: Connection, trial_id: int) -> int:
    """Return the id of the study of a trial, which must exist."""
    return int(connection.execute(select(trial.c.study_id).where(trial.c.id == trial_id)).scalar_one())


def running(connection: Connection, study_id: int) -> list[RunningTrial]:
    """Read how far the running trials of a study are, by number; those of which that is not known are left out."""
    return [RunningTrial(**row) for row in connection.execute(_RUNNING, {"study_id": study_id}).mappings()]


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


def is_being_cancelled(connection: Connection, trial_id: int) -> bool:
    """Return whether a worker trains a trial that somebody has cancelled; it sees that at its next heartbeat."""
    query = select(trial.c.cancel_requested).where(trial.c.id == trial_id, trial.c.state == TrialState.RUNNING)
    return bool(connection.execute(query).scalar_one_or_none())


def demand(connection: Connection, study_id: int) -> int:
    """Count the workers that could have a trial of this study soon: those heard of within the last minute."""
    return int(connection.execute(_DEMAND, {"study_id": study_id, "seconds": ALIVE_SECONDS}).scalar_one())


def metrics_of(stored: dict[str, Any] | None) -> Metrics | None:
    """Return metrics as they were reported from what the store keeps."""
    # A large float is a whole number in JSON as Postgres writes it.
    return None if stored is None else {name: float(value) for name, value in stored.items()}


def curve_of(stored: Mapping[str, dict[str, Any]]) -> dict[int, Metrics]:
    """Return a curve, in the order of the steps, from the object that a query has made of it."""
    found = {int(step): metrics_of(metrics) or {} for step, metrics in stored.items()}
    return dict(sorted(found.items()))


def from_row(row: RowMapping) -> TrialRecord:
    """Return a trial from a row of a query that reads one."""
    kind: str | None = row["failure_kind"]
    finished: datetime | None = row["finished_at"]
    read = TrialRecord(
        id=row["id"],
        number=row["number"],
        state=TrialState(row["state"]),
        params=row["params"],
        curve=curve_of(row["curve"]),
        metrics=metrics_of(row["metrics"]),
        attempt=row["attempt"],
        failure_kind=None if kind is None else FailureKind(kind),
        failure_message=row["failure_message"],
        generator=row["generator"],
        origin=row["origin"],
        replicate_of=row["replicate_of"],
        predicted_mean=row["predicted_mean"],
        predicted_sd=row["predicted_sd"],
        predicted_feasibility=row["predicted_feasibility"],
        worker=row["lease_worker"],
        lost_on=tuple(row["lost_on"]),
        dataset_version=row["dataset_version"],
        weights=tuple(row["weights"] or ()),
        epochs_done=row["epochs_done"],
        gpu_seconds=row["gpu_seconds"],
        peak_memory_bytes=row["peak_memory_bytes"],
        progress=row["progress"],
        progress_at=row["progress_at"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=finished,
    )
    return settled(read, {o["metric"]: o["last_epochs"] for o in row["objectives"] if o.get("last_epochs", 1) > 1})
