"""Why something waits although workers are there, as phrases for a person: a trial for memory, a worker for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from .fleet_sql import TOO_LARGE
from .lifecycle import AVOID_SECONDS, LARGE_SECONDS, LARGER_SECONDS
from .workers import ALIVE_SECONDS

_UNFIT: Final = text(f"SELECT * FROM ({TOO_LARGE}) AS stuck WHERE stuck.id = :trial_id")  # noqa: S608 - a constant
_LARGE: Final = text("""
SELECT trial.required_memory_bytes,
       (SELECT max(worker.last_seen) FROM worker
        WHERE worker.memory_bytes >= trial.required_memory_bytes AND worker.quarantined_at IS NULL
          AND NOT EXISTS (SELECT FROM host_quarantine AS sick WHERE sick.host = worker.host)
          AND (worker.study IS NULL OR worker.study = study.name)
          AND study.task_kind = ANY (worker.task_kinds)
          AND worker.gpus >= study.gpus AND worker.nodes = study.nodes) AS last_seen,
       EXISTS (SELECT FROM worker
               WHERE worker.memory_bytes < trial.required_memory_bytes
                 AND worker.last_seen > clock_timestamp() - make_interval(secs => :alive_seconds)
                 AND (worker.study IS NULL OR worker.study = study.name)
                 AND study.task_kind = ANY (worker.task_kinds)
                 AND worker.gpus >= study.gpus AND worker.nodes = study.nodes) AS is_too_much_for_some
FROM trial JOIN study ON study.id = trial.study_id
WHERE trial.id = :trial_id AND trial.state IN ('suggested', 'paused') AND study.state = 'active'
""")
# The message is in the event of the release.
_MISSING: Final = text("""
SELECT DISTINCT ON (attempt.worker, study.name)
       attempt.worker, study.name AS study, event.detail ->> 'message' AS message,
       attempt.ended_at + make_interval(secs => :avoid_seconds) AS until
FROM attempt
JOIN trial ON trial.id = attempt.trial_id
JOIN study ON study.id = trial.study_id
JOIN worker ON worker.name = attempt.worker
LEFT JOIN event ON event.trial_id = trial.id AND event.kind = 'trial.released'
    AND (event.detail ->> 'attempt')::int = attempt.attempt
WHERE attempt.fault = 'files' AND study.state = 'active'
  AND attempt.ended_at > GREATEST(clock_timestamp() - make_interval(secs => :avoid_seconds), study.state_changed_at,
                                  worker.cleared_at)
ORDER BY attempt.worker, study.name, attempt.ended_at DESC
""")


_TRAINED: Final = text("""
SELECT EXISTS (SELECT FROM study
               JOIN trial ON trial.study_id = study.id
               JOIN attempt ON attempt.trial_id = trial.id
               JOIN measurement ON measurement.trial_id = trial.id AND measurement.attempt = attempt.attempt
               JOIN worker ON worker.name = attempt.worker
               WHERE study.spec #>> '{task,dataset,root}' = :root
                 AND worker.last_seen > clock_timestamp() - make_interval(secs => :alive_seconds))
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFiles:
    """A study that a worker gets no trials of, because it has not found its data set or weights."""

    study: str
    message: str
    until: datetime
    """When it may try again, if it is not started again, or released, before."""


def reason(connection: Connection, trial_id: int) -> str | None:
    """Return what memory a waiting trial waits for; None where it waits for none."""
    unfit = connection.execute(
        _UNFIT, {"trial_id": trial_id, "alive_seconds": ALIVE_SECONDS, "wait_seconds": LARGER_SECONDS}
    ).one_or_none()
    if unfit is not None:
        begin = (
            f"a single clip did not fit into the {_gib(unfit.memory_bytes)} of {unfit.worker}: it waits for a worker"
        )
        if unfit.has_larger:
            return f"{begin} with more memory, and one is there"
        return f"{begin} with more memory; if none comes within {LARGER_SECONDS / 60:.0f} minutes, it fails with oom"
    row = connection.execute(_LARGE, {"trial_id": trial_id, "alive_seconds": ALIVE_SECONDS}).one_or_none()
    if row is None or row.required_memory_bytes is None or not row.is_too_much_for_some or row.last_seen is None:
        return None
    return (
        f"it needs about {_gib(row.required_memory_bytes)} and waits for a worker with as much memory; if none is "
        f"there for {LARGE_SECONDS / 60:.0f} minutes, a smaller one computes its batches in parts"
    )


def missing_files(connection: Connection) -> Mapping[str, Sequence[MissingFiles]]:
    """Return the studies that workers get no trials of because they missed the files, by the name of the worker."""
    found: dict[str, list[MissingFiles]] = {}
    for row in connection.execute(_MISSING, {"avoid_seconds": AVOID_SECONDS}):
        missing = MissingFiles(study=row.study, message=row.message or "no message was given", until=row.until)
        found.setdefault(row.worker, []).append(missing)
    return found


def is_trained_on(connection: Connection, root: str) -> bool:
    """Return whether a live worker has trained on the data set in a folder, in any study."""
    return bool(connection.execute(_TRAINED, {"root": root, "alive_seconds": ALIVE_SECONDS}).scalar_one())


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
