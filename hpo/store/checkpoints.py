"""What is recorded of the checkpoint files of studies: where each trial left its last one, and what was exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, text

from . import events

EXPORTED: Final = "trial.exported"
"""The event of the first export of a trial."""
REMOVED: Final = "trial.checkpoint_removed"
"""The event of a trial whose last checkpoint may be removed, or is."""

_STUDY: Final = text("SELECT id FROM study WHERE uuid = :uuid")
_LOCKED: Final = text("SELECT id FROM study WHERE uuid = :uuid FOR NO KEY UPDATE")
_LOCK: Final = text("SELECT id FROM study WHERE id = :study_id FOR NO KEY UPDATE")
_DELETED: Final = text("""
SELECT detail ->> 'name' AS name FROM event
WHERE study_id IS NULL AND kind = 'study.deleted' AND detail ->> 'uuid' = :uuid
LIMIT 1
""")
_LAST: Final = text("SELECT id, checkpoint FROM trial WHERE study_id = :study_id AND checkpoint IS NOT NULL")
# The kinds are written out: the index that finds these events is of them alone.
_NOTED: Final = {
    kind: text(f"SELECT DISTINCT trial_id FROM event WHERE study_id = :study_id AND kind = '{kind}'")  # noqa: S608 - ours
    for kind in (EXPORTED, REMOVED)
}
_IS_NOTED: Final = text("SELECT EXISTS (SELECT FROM event WHERE trial_id = :trial_id AND kind = :kind)")
_HOSTS: Final = text("""
SELECT DISTINCT worker.host
FROM attempt JOIN trial ON trial.id = attempt.trial_id JOIN worker ON worker.name = attempt.worker
WHERE trial.study_id = :study_id
ORDER BY worker.host
""")
_EARLIER: Final = text("""
SELECT DISTINCT regexp_replace(checkpoint, '/[^/]*/[^/]*$', '') AS folder
FROM trial
WHERE study_id = :study_id AND position('/' || :uuid || '/' IN checkpoint) = 0
ORDER BY folder
""")


def study_of(connection: Connection, uuid: UUID, *, lock: bool = False) -> int | None:
    """Return the id of the study with this UUID, None if there is none; `lock` keeps it as `note_export` does."""
    found: int | None = connection.execute(_LOCKED if lock else _STUDY, {"uuid": uuid}).scalar_one_or_none()
    return found


def deleted_name(connection: Connection, uuid: UUID) -> str | None:
    """Return the name of a study that was deleted, None where this database has never had it."""
    found: str | None = connection.execute(_DELETED, {"uuid": str(uuid)}).scalar_one_or_none()
    return found


def last_ones(connection: Connection, study_id: int) -> dict[int, str]:
    """Return the path of the last checkpoint of each trial that has one, on the machine that wrote it, by trial id."""
    return {row.id: row.checkpoint for row in connection.execute(_LAST, {"study_id": study_id})}


def exported(connection: Connection, study_id: int) -> set[int]:
    """Return the ids of the trials that were exported."""
    return set(connection.execute(_NOTED[EXPORTED], {"study_id": study_id}).scalars())


def note_export(connection: Connection, study_id: int, trial_id: int, *, actor: str) -> bool:
    """Record that a trial is exported, once; return whether its checkpoint is still there.

    It waits for a removal that is just being decided: either that one sees the export, or this sees the removal.
    """
    connection.execute(_LOCK, {"study_id": study_id})
    if not connection.execute(_IS_NOTED, {"trial_id": trial_id, "kind": EXPORTED}).scalar_one():
        events.append(connection, study_id, trial_id, EXPORTED, actor)
    return not connection.execute(_IS_NOTED, {"trial_id": trial_id, "kind": REMOVED}).scalar_one()


def note_removals(connection: Connection, study_id: int, trial_ids: Sequence[int], *, actor: str) -> None:
    """Record that the last checkpoints of these trials go, once for each."""
    known = set(connection.execute(_NOTED[REMOVED], {"study_id": study_id}).scalars())
    details: dict[str, Any] = {}
    rows = [(study_id, trial_id, details) for trial_id in trial_ids if trial_id not in known]
    events.append_all(connection, REMOVED, actor, rows)


def hosts(connection: Connection, study_id: int) -> list[str]:
    """Return the machines on which attempts of the study ran, as far as their workers are known."""
    return list(connection.execute(_HOSTS, {"study_id": study_id}).scalars())


def earlier_folders(connection: Connection, study_id: int, uuid: UUID) -> list[str]:
    """Return the folders of the last checkpoints that are not named by the UUID of the study, as up to 0.2.0."""
    return list(connection.execute(_EARLIER, {"study_id": study_id, "uuid": str(uuid)}).scalars())
