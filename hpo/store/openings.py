"""Openings of sealed test lists: kept for good, whatever becomes of the study."""

from __future__ import annotations

import json
from typing import Final

from sqlalchemy import Connection, text

from ..errors import ConflictError
from ..results.opening import Opening

_KEEP: Final = text("""
INSERT INTO test_opening (id, test_list, split, dataset_version, opened_at, videos, reason, checkpoint, host, score,
                          actor)
VALUES (:id, :test_list, :split, :dataset_version, :opened_at, :videos, :reason, :checkpoint, :host,
        CAST(:score AS jsonb), :actor)
ON CONFLICT (id) DO UPDATE SET score = coalesce(test_opening.score, excluded.score)
    WHERE test_opening.test_list = excluded.test_list
      AND test_opening.checkpoint IS NOT DISTINCT FROM excluded.checkpoint
RETURNING id
""")
_OF_LIST: Final = text("""
SELECT id, test_list, split, dataset_version, opened_at, videos, reason, checkpoint, host, score FROM test_opening
WHERE test_list = :test_list ORDER BY opened_at, id
""")


def keep(connection: Connection, opening: Opening, *, actor: str) -> None:
    """Keep an opening, or the score of one that is kept already; what was kept never changes.

    Raises:
        ConflictError: the id is that of an opening of another list or for another checkpoint.
    """
    values = opening.model_dump(exclude={"score"}) | {"actor": actor}
    score = None if opening.score is None else json.dumps(opening.score)
    found = connection.execute(_KEEP, {**values, "score": score}).one_or_none()
    if found is None:
        raise ConflictError(f"the opening {opening.id} is of another test list or checkpoint")


def of_list(connection: Connection, test_list: str) -> list[Opening]:
    """Return the openings of a test list, the oldest first."""
    rows = connection.execute(_OF_LIST, {"test_list": test_list}).mappings()
    return [Opening.model_validate(dict(row)) for row in rows]
