"""What is wrong with a study itself, for a person to read. Whatever it is, it costs this study and no other."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, select, update

from ..trial import StudyState
from . import events
from .database import Database
from .study_state import move
from .tables import study

_LONGEST: Final = 300
"""Characters of an error's own words that are kept."""
_ACTOR: Final = "guard"


class Part(StrEnum):
    """What of the service fails with a study, as the beginning of a sentence."""

    OPTIMIZER = "the optimizer cannot propose configurations"
    FALLBACK = "no configuration can be proposed without an optimizer"
    STOPPING = "the stopping rule cannot decide"
    SETTLING = "whether the study has ended cannot be decided"


def note(connection: Connection, study_id: int, part: Part, error: Exception) -> bool:
    """Record what `part` raised for a study, and return whether that is news."""
    sentence = f"{part}: {said(error)}"
    changed = connection.execute(
        update(study).where(study.c.id == study_id, study.c.fault.is_distinct_from(sentence)).values(fault=sentence)
    )
    if changed.rowcount:
        events.append(connection, study_id, None, "study.fault", _ACTOR, {"message": sentence})
    return bool(changed.rowcount)


def note_apart(database: Database, study_id: int, part: Part, error: Exception) -> bool:
    """Do the same in a transaction of its own, after the one in which `part` failed."""
    with database.transaction() as connection:
        return note(connection, study_id, part, error)


def over(connection: Connection, study_id: int, fault: str | None, part: Part) -> None:
    """Record that `part` works again; nothing where `fault`, which the study is known to have, is not its."""
    if fault is None or not fault.startswith(part):
        return
    changed = connection.execute(update(study).where(study.c.id == study_id, study.c.fault == fault).values(fault=None))
    if changed.rowcount:
        events.append(connection, study_id, None, "study.fault_over", _ACTOR, {"message": fault})


def pause_unusable(connection: Connection, study_id: int, message: str) -> None:
    """Pause an active study none of whose trials can be handed out. Its spec is not read: that may be what fails."""
    state = connection.execute(
        select(study.c.state).where(study.c.id == study_id).with_for_update(key_share=True)
    ).scalar_one_or_none()
    if state == StudyState.ACTIVE:
        move(connection, study_id, StudyState.PAUSED, message, _ACTOR)


def said(error: Exception) -> str:
    """Return an error as the end of a sentence."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:_LONGEST] if words else type(error).__name__
