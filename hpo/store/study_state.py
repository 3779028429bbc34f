"""Move a study from state to state, and the guard that pauses one whose trials are all invalid."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text, update

from ..trial import StudyState
from . import events
from .study_row import get_by_id
from .tables import NOW, study

_INVALID_STREAK: Final = text("""
SELECT failure_kind, failure_message
FROM trial JOIN study ON study.id = trial.study_id
WHERE trial.study_id = :study_id AND trial.finished_at > study.state_changed_at AND trial.state <> 'withdrawn'
ORDER BY trial.finished_at DESC, trial.id DESC
LIMIT :in_a_row
""")
_EVENTS: Final = {
    StudyState.PAUSED: "study.paused",
    StudyState.ACTIVE: "study.resumed",
    StudyState.STOPPED: "study.stopped",
    StudyState.COMPLETED: "study.completed",
}


def lock(connection: Connection, name: str) -> None:
    """Lock a study until the end of the transaction; its trials are locked after it, never before."""
    connection.execute(text("SELECT id FROM study WHERE name = :name FOR NO KEY UPDATE"), {"name": name})


def lock_of_trial(connection: Connection, trial_id: int) -> None:
    """Lock the study of a trial until the end of the transaction."""
    connection.execute(
        text("SELECT id FROM study WHERE id = (SELECT study_id FROM trial WHERE id = :trial_id) FOR NO KEY UPDATE"),
        {"trial_id": trial_id},
    )


def pause_after_invalid(connection: Connection, study_id: int, *, in_a_row: int) -> bool:
    """Pause a study whose last `in_a_row` finished trials were all invalid; those before a resume do not count."""
    rows = connection.execute(_INVALID_STREAK, {"study_id": study_id, "in_a_row": in_a_row}).all()
    if len(rows) < in_a_row or any(row.failure_kind != "invalid" for row in rows):
        return False
    if get_by_id(connection, study_id).state is not StudyState.ACTIVE:
        return False
    first_line = (rows[0].failure_message or "no message was given").splitlines()[0]
    reason = f"{in_a_row} trials in a row could not be built: {first_line}"
    move(connection, study_id, StudyState.PAUSED, reason, "guard")
    return True


def move(connection: Connection, study_id: int, target: StudyState, reason: str | None, actor: str) -> None:
    """Put a study, locked before, into a state, and record it."""
    connection.execute(
        update(study).where(study.c.id == study_id).values(state=target, state_reason=reason, state_changed_at=NOW)
    )
    events.append(connection, study_id, None, _EVENTS[target], actor, {"reason": reason} if reason else {})
