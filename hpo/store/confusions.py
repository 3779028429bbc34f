"""How trials classified the videos of their newest validation, as their workers said. Nothing is decided by it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select, text

from ..errors import NotFoundError
from ..protocol import Confusion
from ..trial import TrialRecord
from .tables import confusion as table
from .wire import later

# A report that comes late, or again, does not replace what is newer; a later attempt may have begun again.
_KEEP: Final = text("""
INSERT INTO confusion (trial_id, attempt, step, counts)
VALUES (:trial_id, :attempt, :step, CAST(:counts AS jsonb))
ON CONFLICT (trial_id) DO UPDATE
SET attempt = excluded.attempt, step = excluded.step, counts = excluded.counts
WHERE (confusion.attempt, confusion.step) <= (excluded.attempt, excluded.step)
""")


def keep(connection: Connection, trial_id: int, counts: Confusion | None, *, attempt: int) -> None:
    """Keep a confusion matrix in place of an older one of the trial; None changes nothing.

    The caller has made sure that the sender has the trial.
    """
    if counts is None:
        return
    values = {"trial_id": trial_id, "attempt": attempt, "step": counts.step, "counts": counts.model_dump_json()}
    later(connection, _KEEP, values)


def find(connection: Connection, trial_id: int) -> Confusion | None:
    """Return the newest confusion matrix of a trial; None where it has none."""
    stored = connection.execute(select(table.c.counts).where(table.c.trial_id == trial_id)).scalar_one_or_none()
    return None if stored is None else Confusion.model_validate(stored)


def read(connection: Connection, trial: TrialRecord) -> Confusion:
    """Return the newest confusion matrix of a trial.

    Raises:
        NotFoundError: it has none.
    """
    found = find(connection, trial.id)
    if found is None:
        raise NotFoundError(
            f"trial {trial.number} has no confusion matrix: its worker sends one with each validation, unless it is of "
            "an earlier release or trains on its own"
        )
    return found
