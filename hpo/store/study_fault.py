"""What is wrong with a study itself, for a person to read. Whatever it is, it costs this study and no other.

Each part of the service that fails with a study has a line of its own: two that fail by turns are said once each. Of
the optimizers, each has one, and others read there that they should not give it the study.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def note(connection: Connection, study_id: int, part: Part, error: Exception, *, by: str | None = None) -> bool:
    """Record what `part` raised for a study, beside what other parts did, and return whether that is news.

    It is no news that a part fails with an error of the same class in other words, which may name a trial or a time.

    Args:
        by: the process that failed, where others may do better.
    """
    beginning = _beginning(part, by)
    line = f"{beginning} {said(error)}"
    if line in _lines(connection.execute(_FAULT, {"study_id": study_id}).scalar_one_or_none()):
        return False  # without the lock, for which others may wait
    known = _lines(connection.execute(_LOCKED_FAULT, {"study_id": study_id}).scalar_one_or_none())
    before = next((one for one in known if one.startswith(beginning)), "")
    _write(connection, study_id, [*(one for one in known if one != before), line])
    is_news = not before.startswith(f"{beginning} {type(error).__name__}")
    if is_news:
        events.append(connection, study_id, None, "study.fault", _ACTOR, {"message": line})
    return is_news


def note_apart(database: Database, study_id: int, part: Part, error: Exception, *, by: str | None = None) -> bool:
    """Do the same in a transaction of its own, after the one in which `part` failed."""
    with database.transaction() as connection:
        return note(connection, study_id, part, error, by=by)


def over(connection: Connection, study_id: int, fault: str | None, part: Part, *, still: Collection[str] = ()) -> None:
    """Record that `part` works again; nothing where `fault`, which the study is known to have, has none of it.

    Args:
        still: processes whose failures are not over.
    """
    if not is_of(fault, part, still=still):
        return
    known = _lines(connection.execute(_LOCKED_FAULT, {"study_id": study_id}).scalar_one_or_none())
    ended = [line for line in known if _is_line_of(line, part, still)]
    if ended:
        _write(connection, study_id, [line for line in known if line not in ended])
    for line in ended:
        events.append(connection, study_id, None, "study.fault_over", _ACTOR, {"message": line})


def is_of(fault: str | None, part: Part, *, still: Collection[str] = ()) -> bool:
    """Return whether `part` has failed with a study that has this `fault`, in other processes than those of `still`."""
    return any(_is_line_of(line, part, still) for line in _lines(fault))


def failed(fault: str | None, part: Part, processes: Collection[str]) -> frozenset[str]:
    """Return in which of the processes `part` fails with a study that has this `fault`."""
    lines = _lines(fault)
    return frozenset(by for by in processes if any(line.startswith(_beginning(part, by)) for line in lines))


def sentence(fault: str, server: str | None) -> str:
    """Return a fault as a sentence without a full stop; `server` is the optimizer that serves the study."""
    lines = fault.splitlines()
    if server is None or failed(fault, Part.OPTIMIZER, [server]):
        return "; ".join(lines)
    of_others = f"{Part.OPTIMIZER} ("
    return "; ".join(f"{line}, but another one serves it" if line.startswith(of_others) else line for line in lines)


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


def _beginning(part: Part, by: str | None) -> str:
    return f"{part}:" if by is None else f"{part} ({by}):"


def _is_line_of(line: str, part: Part, still: Collection[str]) -> bool:
    return line.startswith(part) and not any(line.startswith(_beginning(part, by)) for by in still)


def _lines(fault: str | None) -> list[str]:
    return fault.splitlines() if fault else []


def _write(connection: Connection, study_id: int, lines: Sequence[str]) -> None:
    connection.execute(_SET_FAULT, {"study_id": study_id, "fault": "\n".join(sorted(lines)) or None})
