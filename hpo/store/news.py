"""Whether anything that people look at has changed: a mark that differs from the last one if so, read by indexes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

_OF_STUDY: Final = text("""
SELECT (SELECT id FROM event WHERE study_id = :study_id ORDER BY transaction_id DESC, id DESC LIMIT 1) AS event,
       (SELECT max(attempt.progress_at) FROM trial
        JOIN attempt ON attempt.trial_id = trial.id AND attempt.attempt = trial.attempt
        WHERE trial.study_id = study.id AND trial.state = 'running' AND trial.lease_expires_at IS NOT NULL) AS progress,
       (SELECT count(*) FILTER (WHERE last_seen > clock_timestamp() - interval '60 s') FROM worker) AS alive,
       study.state, study.state_changed_at, study.finished_at, study.live_trials, study.revision
FROM study WHERE id = :study_id
""")
_OF_ALL: Final = text("""
SELECT (SELECT max(id) FROM event) AS event,
       (SELECT count(*) FILTER (WHERE last_seen > clock_timestamp() - interval '60 s') FROM worker) AS alive,
       (SELECT max(progress_at) FROM trial
        JOIN attempt ON attempt.trial_id = trial.id AND attempt.attempt = trial.attempt
        WHERE trial.state = 'running' AND trial.lease_expires_at IS NOT NULL) AS progress
""")


def mark(connection: Connection, study_id: int | None) -> str:
    """Return the mark of a study, or of everything."""
    row = (
        connection.execute(_OF_ALL) if study_id is None else connection.execute(_OF_STUDY, {"study_id": study_id})
    ).one_or_none()
    return "" if row is None else " ".join(map(str, row))
