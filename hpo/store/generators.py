"""The lease of the one optimizer that suggests for a study."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, Text, case, cast, or_, select, text, true, update

from ..trial import StudyState
from . import optimizers
from .study_row import is_readable
from .tables import NOW, study


def acquire(connection: Connection, study_id: int, owner: str, seconds: float) -> int | None:
    """Take or renew the right to suggest for a study; return the generation, None while somebody else holds it.

    The generation grows whenever the owner changes or comes back after its lease expired: what it suggests under an
    older generation is refused.
    """
    mine = (study.c.generator_owner == owner) & (study.c.generator_expires_at > NOW)
    expires = text("clock_timestamp() + make_interval(secs => :seconds)").bindparams(seconds=seconds)
    renew = update(study).where(study.c.id == study_id, mine).values(generator_expires_at=expires)
    generation = connection.execute(renew.returning(study.c.generation)).scalar_one_or_none()
    if generation is None:
        free = or_(study.c.generator_expires_at.is_(None), study.c.generator_expires_at <= NOW)
        take = (
            update(study)
            .where(study.c.id == study_id, free)
            .values(generator_owner=owner, generator_expires_at=expires, generation=study.c.generation + 1)
        )
        generation = connection.execute(take.returning(study.c.generation)).scalar_one_or_none()
    return None if generation is None else int(generation)


def release(connection: Connection, study_id: int, owner: str) -> None:
    """Give the right to suggest back, if `owner` holds it."""
    connection.execute(
        update(study)
        .where(study.c.id == study_id, study.c.generator_owner == owner)
        .values(generator_owner=None, generator_expires_at=None)
    )


def release_all(connection: Connection, owner: str, *, but: int | None = None) -> None:
    """Give back whatever `owner` holds, but for one study: it ends, so nobody need wait for its leases to expire."""
    connection.execute(
        update(study)
        .where(study.c.generator_owner == owner, study.c.id.is_distinct_from(but))
        .values(generator_owner=None, generator_expires_at=None)
    )
    optimizers.remove(connection, owner)


def owners(connection: Connection, study_ids: Collection[int]) -> dict[int, str | None]:
    """Return who holds the lease of each of these studies; None where nobody does."""
    owner = case((study.c.generator_expires_at > NOW, study.c.generator_owner), else_=None)
    rows = connection.execute(select(study.c.id, owner).where(study.c.id.in_(study_ids)))
    return {int(study_id): name for study_id, name in rows}


def count_served(connection: Connection) -> tuple[int, int]:
    """Return how many studies are active, and on how many of them an optimizer holds an unexpired lease.

    Studies that this release cannot read, which nobody serves, do not count.
    """
    is_active, is_served = study.c.state == StudyState.ACTIVE, study.c.generator_expires_at > NOW
    # What an optimizer serves it has read.
    unread = case((is_served, None), else_=cast(study.c.spec, Text))
    rows = connection.execute(select(is_served.is_(true()).label("is_served"), unread.label("spec")).where(is_active))
    found = [row.is_served for row in rows if row.is_served or is_readable(row.spec)]
    return len(found), sum(found)
