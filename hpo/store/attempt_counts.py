"""How many attempts of trials have begun, and ended in which way, over all studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

_COUNTS: Final = text("""
SELECT ended_as, fault, count(*) AS attempts FROM attempt
WHERE ended_at IS NOT NULL GROUP BY ended_as, fault ORDER BY ended_as, fault
""")

_BEGUN: Final = text("SELECT count(*) FROM attempt")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempts:
    """A number of attempts that ended alike."""

    ended_as: str
    """The state of the trial that they ended, or why the trial goes on: `expired` where the worker was not heard of
    any more, else the reason that it gave the trial back for."""
    fault: str | None
    """What the machine did to them, of `hpo.trial.Fault`."""
    attempts: int


def begun_attempts(connection: Connection) -> int:
    """Count the attempts that have begun: one for each claim of a trial."""
    return int(connection.execute(_BEGUN).scalar_one())


def ended_attempts(connection: Connection) -> list[EndedAttempts]:
    """Count the attempts that have ended, by how."""
    return [EndedAttempts(**row) for row in connection.execute(_COUNTS).mappings()]
