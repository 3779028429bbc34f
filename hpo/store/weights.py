"""Which weights the trials of a study started from: all that name one source must have started from the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from ..errors import ConflictError
from ..protocol import LoadedWeights
from .study_state import lock_of_trial

_DIGESTS: Final = text("""
SELECT DISTINCT ON (source) loaded ->> 'source' AS source, loaded ->> 'sha256' AS sha256
FROM trial, jsonb_array_elements(trial.weights) AS loaded
WHERE trial.study_id = :study_id AND trial.weights IS NOT NULL AND trial.state <> 'failed'
ORDER BY source, trial.id
""")
_OF_TRIAL: Final = text("SELECT study_id, weights FROM trial WHERE id = :trial_id")


def digests(connection: Connection, study_id: int) -> dict[str, str]:
    """Return the SHA-256 of every file that trials of the study started from, by its source; failed trials aside."""
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
                f"the weights {loaded.source!r} have the SHA-256 {loaded.sha256} there, but trials of this study "
                f"started from {first}: put the same file on every machine"
            )
    return bool(row.weights != [loaded.model_dump() for loaded in sent])
