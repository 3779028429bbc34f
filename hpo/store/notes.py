"""What people note about a study."""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy import Connection, select, update

from ..errors import ConflictError
from . import events
from .study_row import id_of
from .tables import study

MOST_CHARACTERS: Final = 20_000


def as_kept(note: str | None) -> str | None:
    """Return a note as it is kept: a line end is one character, and nothing but spaces is None."""
    # Postgres keeps no NUL.
    return (note or "").replace("\r\n", "\n").replace("\0", "?").strip() or None


def digest(note: str | None) -> str:
    """Return what tells a note from others."""
    return hashlib.sha256((note or "").encode()).hexdigest()


def set_note(connection: Connection, name: str, note: str | None, *, actor: str, replaces: str | None = None) -> None:
    """Keep a note of at most `MOST_CHARACTERS` in place of the one before; None or nothing but spaces removes it.

    `replaces` is the digest of the note that this one is to replace; None for whatever is there.

    Raises:
        NotFoundError: there is no such study.
        ConflictError: the note is another one by now.
    """
    study_id = id_of(connection, name)
    text = as_kept(note)
    of_study = study.c.id == study_id
    before = connection.execute(select(study.c.note).where(of_study).with_for_update(key_share=True)).scalar_one()
    if text == before:
        return
    if replaces not in (None, digest(before)):
        raise ConflictError(f"somebody has changed the note of {name!r} since this page was loaded")
    connection.execute(update(study).where(of_study).values(note=text))
    events.append(connection, study_id, None, "study.noted", actor, {"removed": text is None})
