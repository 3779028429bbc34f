"""What people note about a study."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select, update

from . import events
from .study_row import id_of
from .tables import study

MOST_CHARACTERS: Final = 20_000


def set_note(connection: Connection, name: str, note: str | None, *, actor: str) -> None:
    """Keep a note of at most `MOST_CHARACTERS` in place of the one before; None or nothing but spaces removes it.

    Raises:
        NotFoundError: there is no such study.
    """
    study_id = id_of(connection, name)
    # Postgres keeps no NUL.
    text = (note or "").replace("\r\n", "\n").replace("\0", "?").strip() or None
    of_study = study.c.id == study_id
    before = connection.execute(select(study.c.note).where(of_study).with_for_update(key_share=True)).scalar_one()
    if text == before:
        return
    connection.execute(update(study).where(of_study).values(note=text))
    events.append(connection, study_id, None, "study.noted", actor, {"removed": text is None})
