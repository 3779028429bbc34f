"""For how long studies have had no trial that a worker could claim."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, text

_EMPTY_SECONDS: Final = text("""
SELECT study.id, EXTRACT(epoch FROM clock_timestamp() - GREATEST(study.state_changed_at, max(trial.started_at)))
FROM study LEFT JOIN trial ON trial.study_id = study.id
WHERE study.id = ANY(:studies) GROUP BY study.id
""")


def empty_seconds(connection: Connection, studies: Collection[int]) -> dict[int, float]:
    """Return by id for how many seconds the queues of these studies have been empty, which they are now.

    An empty queue has been so since its last trial was claimed for the first time, or since the study became active.
    """
    rows = connection.execute(_EMPTY_SECONDS, {"studies": list(studies)}) if studies else ()
    return {study_id: max(float(seconds), 0.0) for study_id, seconds in rows}
