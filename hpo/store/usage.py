"""Device time: what counts as used, as SQL.

An attempt uses its device, or each of its GPUs, from the claim to its end: start-up, epochs, evaluation and whatever
fails included. One that runs counts up to now. A worker that falls silent was alive for at most one heartbeat after its
last sign of life, and so long its attempt counts; if it comes back, the whole time counts. So usage never decreases. A
trial has used the sum over its attempts, or what its epochs took if that is more: epochs that a worker trained while
the API was away, before it died, are reported by the next attempt.
"""

from __future__ import annotations

from typing import Final

HEARTBEATS_PER_LEASE: Final = 4

USED_SECONDS: Final = """
GREATEST(used.gpu_seconds, COALESCE((
    SELECT sum(attempt.gpus * EXTRACT(epoch FROM COALESCE(
        attempt.ended_at,
        GREATEST(attempt.seen_at, LEAST(
            clock_timestamp(), attempt.seen_at + make_interval(secs => used.lease_seconds / :heartbeats)
        ))
    ) - attempt.claimed_at))::float8
    FROM attempt WHERE attempt.trial_id = used.id
), 0))
""".strip().replace(":heartbeats", str(HEARTBEATS_PER_LEASE))
"""The device seconds of the row `used` of the table `trial`."""

STUDY_USED_SECONDS: Final = f"""
((SELECT COALESCE(sum(used_seconds), 0) FROM study_total WHERE study_total.study_id = study.id)
 + (SELECT COALESCE(sum({USED_SECONDS}), 0) FROM trial AS used
    WHERE used.study_id = study.id AND used.finished_at IS NULL))
""".strip()  # noqa: S608 - constants
"""The device seconds of the row `study`: those of trials that have ended are stored (`totals.py`)."""
