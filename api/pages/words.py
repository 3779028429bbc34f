"""Numbers, times and values as a person reads them on a page."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Final

from hpo.activity import duration

UNKNOWN: Final = "\u2013"


def shown(value: object) -> str:
    """Return a value of a metric or a parameter in at most four digits."""
    if isinstance(value, bool) or not isinstance(value, float):
        return UNKNOWN if value is None else str(value)
    return f"{value:.4g}"


def percent(share: float) -> str:
    """Return a share of 1 as `12%`."""
    return f"{share:.0%}"


def hours(value: float) -> str:
    """Return a number of hours with the digits that matter: `0`, `< 0.001`, `0.04`, `1.25` or `340`."""
    if value == 0:
        return "0"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.2g}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def count(number: int, name: str) -> str:
    """Return how many there are, such as `1 trial` or `2,000 trials`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def size(count_of_bytes: float) -> str:
    """Return an amount of memory in GiB."""
    return f"{count_of_bytes / 2**30:.3g} GiB"


def moment(at: datetime | None) -> str:
    """Return a point in time as `29 Nov 06:30 UTC`."""
    return UNKNOWN if at is None else f"{at.astimezone(UTC):%d %b %H:%M} UTC"


def ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago something was, such as `5 min ago`."""
    return UNKNOWN if at is None else f"{duration(max((now - at).total_seconds(), 0.0))} ago"


def shell(text: str) -> str:
    """Return text as one word of a shell."""
    return shlex.quote(text)
