"""What is wrong with a study itself, for a person to read. Whatever it is, it costs this study and no other.

Each part of the service that fails with a study has a line of its own: two that fail by turns are said once each.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, select, text

from ..trial import StudyState
from . import events
from .database import Database
from .study_state import move
from .tables import study

_LONGEST: Final = 300
"""Characters of an error's own words that are kept."""
_ACTOR: Final = "guard"
_FAULT: Final = text("SELECT fault FROM study WHERE id = :study_id")
_LOCKED_FAULT: Final = text("SELECT fault FROM study WHERE id = :study_id FOR NO KEY UPDATE")
_SET_FAULT: Final = text("UPDATE study SET fault = :fault WHERE id = :study_id")


class Part(StrEnum):
    """What of the service fails with a study, as the beginning of a sentence."""

    OPTIMIZER = "the optimizer cannot propose configurations"
    FALLBACK = "no configuration can be proposed without an optimizer"
    STOPPING = "the stopping rule cannot decide"
    SETTLING = "whether the study has ended cannot be decided"


def note(connection: Connection, study_id: int, part: Part, error: Exception) -> bool:
    """Record what `part` raised for a study, beside what other parts did, and return whether that is news.

    It is no news that a part fails with an error of the same class in other words, which may name a trial or a time.
    """
    sentence = f"{part}: {said(error)}"
    if sentence in _lines(connection.execute(_FAULT, {"study_id": study_id}).scalar_one_or_none()):
        return False  # without the lock, for which others may wait
    known = _lines(connection.execute(_LOCKED_FAULT, {"study_id": study_id}).scalar_one_or_none())
    before = next((line for line in known if line.startswith(part)), "")
    _write(connection, study_id, [*(line for line in known if line != before), sentence])
    is_news = not before.startswith(f"{part}: {type(error).__name__}")
    if is_news:
        events.append(connection, study_id, None, "study.fault", _ACTOR, {"message": sentence})
    return is_news


def note_apart(database: Database, study_id: int, part: Part, error: Exception) -> bool:
    """Do the same in a transaction of its own, after the one in which `part` failed."""
    with database.transaction() as connection:
        return note(connection, study_id, part, error)


def over(connection: Connection, study_id: int, fault: str | None, part: Part) -> None:
    """Record that `part` works again; nothing where `fault`, which the study is known to have, has none of it."""
    if not any(line.startswith(part) for line in _lines(fault)):
        return
    known = _lines(connection.execute(_LOCKED_FAULT, {"study_id": study_id}).scalar_one_or_none())
    ended = [line for line in known if line.startswith(part)]
    if ended:
        _write(connection, study_id, [line for line in known if line not in ended])
        events.append(connection, study_id, None, "study.fault_over", _ACTOR, {"message": ended[0]})


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


def _lines(fault: str | None) -> list[str]:
    return fault.splitlines() if fault else []


def _write(connection: Connection, study_id: int, lines: Sequence[str]) -> None:
    connection.execute(_SET_FAULT, {"study_id": study_id, "fault": "\n".join(sorted(lines)) or None})
