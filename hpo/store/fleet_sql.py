"""What other workers could do for a trial, as SQL: parts of statements that need the same."""

from __future__ import annotations

from typing import Final

OTHERS_MAY_HAVE_FILES: Final = """
EXISTS (SELECT FROM worker AS other
        WHERE other.name <> :worker
          AND other.last_seen > clock_timestamp() - make_interval(secs => :alive_seconds)
          AND (other.study IS NULL OR other.study = study.name)
          AND study.task_kind = ANY (other.task_kinds)
          AND other.gpus >= study.gpus AND other.nodes = study.nodes
          AND NOT EXISTS (SELECT FROM attempt AS theirs
                          JOIN trial AS there ON there.id = theirs.trial_id
                          WHERE there.study_id = study.id AND theirs.worker = other.name AND theirs.fault = 'files'
                            AND theirs.ended_at > GREATEST(study.state_changed_at, other.cleared_at)))
""".strip()
"""Whether a live worker besides `:worker`, in quarantine or not, has not missed the files of the row `study`."""

TOO_LARGE: Final = """
SELECT trial.id, trial.study_id, study.name AS study, trial.attempt, unfit.worker, unfit.memory_bytes,
       COALESCE(larger.last_seen > clock_timestamp() - make_interval(secs => :alive_seconds), false) AS has_larger,
       COALESCE(larger.last_seen > clock_timestamp() - make_interval(secs => :wait_seconds), false) AS had_larger,
       (SELECT max(event.created_at) FROM event
        WHERE event.trial_id = trial.id AND event.kind = 'trial.waits'
          AND event.created_at > (SELECT max(attempt.ended_at) FROM attempt WHERE attempt.trial_id = trial.id)
       ) AS warned_at
FROM trial
JOIN study ON study.id = trial.study_id
JOIN LATERAL (SELECT small.name AS worker, small.memory_bytes, small.gpu_name
              FROM attempt
              JOIN worker AS small ON small.name = attempt.worker
              WHERE attempt.trial_id = trial.id AND attempt.ended_as = 'failed'
              ORDER BY small.memory_bytes DESC NULLS LAST
              LIMIT 1) AS unfit ON true
LEFT JOIN LATERAL (SELECT max(other.last_seen) AS last_seen
                   FROM worker AS other
                   WHERE other.memory_bytes > unfit.memory_bytes
                     AND (other.gpu_name IS NULL) = (unfit.gpu_name IS NULL)
                     AND (other.study IS NULL OR other.study = study.name)
                     AND study.task_kind = ANY (other.task_kinds)
                     AND other.gpus >= study.gpus AND other.nodes = study.nodes) AS larger ON true
WHERE trial.state IN ('suggested', 'paused') AND trial.attempt > 0 AND NOT trial.held AND study.state = 'active'
  AND study.budget_reached_at IS NULL
""".strip()
"""Waiting trials of which a single clip did not fit into the memory of a worker: which worker that was (that with the
most memory), whether one with more is there now, or was within `:wait_seconds`, and when it was said that none is."""
