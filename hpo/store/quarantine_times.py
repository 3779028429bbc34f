"""How long a worker or a host in quarantine waits: twice as long after every further fault, up to an hour."""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 120.0
LONGEST_SECONDS: Final = 3600.0
RESTART_SECONDS: Final = 60.0
"""A worker that is started again so soon after a fault has hardly been repaired."""
_MAX_DOUBLINGS: Final = 32
"""More than enough; without a limit the power overflows after weeks of one fault an hour."""


def seconds_after(further_faults: int) -> float:
    """Return the wait after that number of faults beyond those that began the quarantine."""
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(further_faults, _MAX_DOUBLINGS))
