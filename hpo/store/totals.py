"""What the trials of a study that have ended add up to, so that nobody has to read all of them.

A trigger (`total_trigger.py`) adds a row for each trial that ends, in the transaction of the statement that ends it,
whichever statement that is. For a trial that changes afterwards, such as one that is taken out of its study, it adds a
row that takes away what the trial had added, and one for what it adds now. Rows are added and never changed, so that
workers whose trials end at one time do not wait for each other. `fold` replaces many rows of a study by their sums.
Imported trials do not count.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

MOST_ROWS: Final = 64
"""A study with more rows has them folded."""

_FOLD: Final = text("""
WITH many AS MATERIALIZED (
    -- Nobody deletes them meanwhile.
    SELECT id FROM study WHERE (SELECT count(*) FROM study_total WHERE study_id = study.id) > :most
    ORDER BY id FOR KEY SHARE SKIP LOCKED
), old AS MATERIALIZED (
    SELECT study_total.id FROM study_total JOIN many ON many.id = study_total.study_id
    FOR UPDATE OF study_total SKIP LOCKED
), gone AS (
    DELETE FROM study_total USING old WHERE study_total.id = old.id RETURNING study_total.*
)
INSERT INTO study_total (study_id, state, trials, gpu_seconds, used_seconds, saved_seconds, enqueued, replicates,
                         with_epochs, first_started_at)
SELECT study_id, state, sum(trials), sum(gpu_seconds), sum(used_seconds), sum(saved_seconds), sum(enqueued),
       sum(replicates), sum(with_epochs), min(first_started_at)
FROM gone GROUP BY study_id, state
""")


def fold(connection: Connection, *, most: int = MOST_ROWS) -> None:
    """Replace the rows of each study that has more than `most` by their sums; any number may do it at once."""
    connection.execute(_FOLD, {"most": most})
