"""Move a study from state to state, and the guards that pause one whose trials cannot be trained."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select, text, update

from ..trial import StudyState
from . import events
from .fleet_sql import OTHERS_MAY_HAVE_FILES
from .notifications import Channel, announce
from .tables import NOW, study
from .workers import ALIVE_SECONDS

_INVALID_STREAK: Final = text("""
SELECT failure_kind, failure_message
FROM trial JOIN study ON study.id = trial.study_id
WHERE trial.study_id = :study_id AND trial.finished_at > study.state_changed_at AND trial.state <> 'withdrawn'
ORDER BY trial.finished_at DESC, trial.id DESC
LIMIT :in_a_row
""")
_OTHERS_MAY_HAVE_IT: Final = text(f"SELECT {OTHERS_MAY_HAVE_FILES} FROM study WHERE id = :study_id")  # noqa: S608 - a constant
_EVENTS: Final = {
    StudyState.PAUSED: "study.paused",
    StudyState.ACTIVE: "study.resumed",
    StudyState.STOPPED: "study.stopped",
    StudyState.COMPLETED: "study.completed",
    StudyState.FAILED: "study.failed",
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


def state_of(connection: Connection, study_id: int) -> StudyState:
    """Return the state of a study that exists, whether or not its spec can be read."""
    return StudyState(connection.execute(select(study.c.state).where(study.c.id == study_id)).scalar_one())


def pause_after_invalid(connection: Connection, study_id: int, *, in_a_row: int) -> bool:
    """Pause a study whose last `in_a_row` finished trials were all invalid; those before a resume do not count."""
    rows = connection.execute(_INVALID_STREAK, {"study_id": study_id, "in_a_row": in_a_row}).all()
    if len(rows) < in_a_row or any(row.failure_kind != "invalid" for row in rows):
        return False
    if state_of(connection, study_id) is not StudyState.ACTIVE:
        return False
    first_line = (rows[0].failure_message or "no message was given").splitlines()[0]
    reason = f"{in_a_row} trials in a row could not be built: {first_line}"
    move(connection, study_id, StudyState.PAUSED, reason, "guard")
    return True


def pause_without_files(connection: Connection, study_id: int, worker: str, message: str) -> None:
    """Pause a study, locked before, if `worker` has just missed its data set or weights and no live worker has them."""
    if state_of(connection, study_id) is not StudyState.ACTIVE:
        return
    values = {"study_id": study_id, "worker": worker, "alive_seconds": ALIVE_SECONDS}
    if not connection.execute(_OTHERS_MAY_HAVE_IT, values).scalar_one():
        move(connection, study_id, StudyState.PAUSED, f"no worker has the files: {message}", "guard")


def move(connection: Connection, study_id: int, target: StudyState, reason: str | None, actor: str) -> None:
    """Put a study, locked before, into a state, and record it."""
    connection.execute(
        update(study).where(study.c.id == study_id).values(state=target, state_reason=reason, state_changed_at=NOW)
    )
    events.append(connection, study_id, None, _EVENTS[target], actor, {"reason": reason} if reason else {})
    if target is StudyState.ACTIVE:
        announce(connection, Channel.TRIALS)
