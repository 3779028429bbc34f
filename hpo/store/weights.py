"""Which weights the trials of a study started from: all that name one source must have started from the same bytes.

Trials of earlier studies that it learns from count too: else it would compare what started from other weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from ..errors import ConflictError
from ..protocol import LoadedWeights
from .study_state import lock_of_trial

_DIGESTS: Final = text("""
SELECT DISTINCT ON (source) source, sha256
FROM (
    SELECT key AS source, value AS sha256, 0 AS place
    FROM earlier_trial, jsonb_each_text(earlier_trial.weights)
    WHERE earlier_trial.study_id = :study_id AND earlier_trial.weights IS NOT NULL
    UNION ALL
    SELECT loaded ->> 'source', loaded ->> 'sha256', trial.id
    FROM trial, jsonb_array_elements(trial.weights) AS loaded
    WHERE trial.study_id = :study_id AND trial.weights IS NOT NULL AND trial.state <> 'failed'
) AS started
ORDER BY source, place
""")
_OF_TRIAL: Final = text("SELECT study_id, weights FROM trial WHERE id = :trial_id")


def digests(connection: Connection, study_id: int) -> dict[str, str]:
    """Return the SHA-256 of every file that trials of the study started from, by its source; failed trials aside.

    Where trials that it has taken over from earlier studies started from a file, theirs counts.
    """
    return {row.source: row.sha256 for row in connection.execute(_DIGESTS, {"study_id": study_id})}


def check(connection: Connection, trial_id: int, sent: Sequence[LoadedWeights]) -> bool:
    """Return whether `sent` is news of the trial; locks its study, so that the first of two trials decides.

    Raises:
        ConflictError: another trial of the study started from other bytes of the same name.
    """
    lock_of_trial(connection, trial_id)
    row = connection.execute(_OF_TRIAL, {"trial_id": trial_id}).one_or_none()
    if row is None:
        return False
    known = digests(connection, row.study_id)
    for loaded in sent:
        first = known.get(loaded.source, loaded.sha256)
        if loaded.sha256 != first:
            raise ConflictError(
                f"the weights {loaded.source!r} have the SHA-256 {loaded.sha256} there, but trials of this study, or "
                f"of one that it learns from, started from {first}: put the same file on every machine"
            )
    return bool(row.weights != [loaded.model_dump() for loaded in sent])
