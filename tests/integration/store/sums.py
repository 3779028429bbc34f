"""What the ended trials of studies add up to, read from all of them, beside what is stored of it."""

from __future__ import annotations

from typing import Any, Final

import pytest
from sqlalchemy import Connection, text

_STORED: Final = text("""
SELECT study_id, state, sum(trials) AS trials, sum(gpu_seconds) AS gpu_seconds, sum(used_seconds) AS used_seconds,
       sum(saved_seconds) AS saved_seconds, sum(enqueued) AS enqueued, sum(replicates) AS replicates,
       sum(with_epochs) AS with_epochs
FROM study_total GROUP BY study_id, state
""")
_COUNTED: Final = text("""
SELECT study.id AS study_id, trial.state, count(*) AS trials, sum(trial.gpu_seconds) AS gpu_seconds,
       sum(GREATEST(trial.gpu_seconds, COALESCE(attempts.seconds, 0))) AS used_seconds,
       COALESCE(sum(trial.gpu_seconds / trial.epochs_done * ((study.spec #>> '{task,epochs}')::int - trial.epochs_done))
           FILTER (WHERE trial.state = 'stopped' AND NOT trial.cancel_requested AND trial.epochs_done > 0
                     AND (study.state <> 'stopped' OR trial.finished_at < study.state_changed_at)
                     AND trial.finished_at
                         < COALESCE(LEAST(study.budget_reached_at, study.search_ended_at), 'infinity')
           ), 0) AS saved_seconds,
       count(*) FILTER (WHERE trial.generator = 'enqueued') AS enqueued,
       count(*) FILTER (WHERE trial.replicate_of IS NOT NULL AND trial.state <> 'withdrawn') AS replicates,
       count(*) FILTER (WHERE trial.epochs_done > 0 OR trial.state = 'completed') AS with_epochs
FROM trial JOIN study ON study.id = trial.study_id
LEFT JOIN (SELECT trial_id, sum(gpus * EXTRACT(epoch FROM ended_at - claimed_at)::float8) AS seconds
           FROM attempt GROUP BY trial_id) AS attempts ON attempts.trial_id = trial.id
WHERE trial.finished_at IS NOT NULL AND trial.origin IS NULL
GROUP BY study.id, trial.state
""")
_FIRST: Final = text("""
SELECT study.id, (SELECT min(first_started_at) FROM study_total WHERE study_id = study.id) AS stored,
       (SELECT min(started_at) FROM trial WHERE study_id = study.id AND finished_at IS NOT NULL) AS counted
FROM study
""")


def check_totals(connection: Connection) -> None:
    """Fail unless what is stored of every study is what its ended trials add up to."""
    stored, counted = _sums(connection, _STORED), _sums(connection, _COUNTED)
    nothing = dict.fromkeys(next(iter({**stored, **counted}.values()), {}), 0.0)
    for place in stored.keys() | counted.keys():
        expected = pytest.approx(counted.get(place, nothing), rel=1e-9, abs=1e-6)
        assert stored.get(place, nothing) == expected, f"(study, state) {place}"
    assert [row for row in connection.execute(_FIRST) if row.stored != row.counted] == []


def _sums(connection: Connection, query: Any) -> dict[tuple[int, str], dict[str, float]]:
    return {
        (row["study_id"], row["state"]): {
            name: float(value) for name, value in row.items() if name not in ("study_id", "state")
        }
        for row in connection.execute(query).mappings()
    }
