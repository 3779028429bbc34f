"""How many attempts of trials have begun, and ended in which way, over all studies.

All attempts are counted: the stored totals (`totals.py`) know in which state a trial has ended, and not how the
attempts before its last one did, nor what the machines did to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

_COUNTS: Final = text("""
SELECT ended_as, fault, count(*) AS attempts FROM attempt GROUP BY ended_as, fault ORDER BY ended_as, fault
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempts:
    """A number of attempts that ended alike."""

    ended_as: str
    """The state of the trial that they ended, or why the trial goes on: `expired` where the worker was not heard of
    any more, else the reason that it gave the trial back for."""
    fault: str | None
    """What the machine did to them, of `hpo.trial.Fault`."""
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCounts:
    """All attempts."""

    begun: int
    """One for each claim of a trial."""
    ended: tuple[EndedAttempts, ...]


def read(connection: Connection) -> AttemptCounts:
    """Count the attempts, reading each once."""
    rows = connection.execute(_COUNTS).mappings().all()
    ended = tuple(EndedAttempts(**row) for row in rows if row["ended_as"] is not None)
    return AttemptCounts(begun=sum(row["attempts"] for row in rows), ended=ended)
