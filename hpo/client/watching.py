"""Following a study: its events as they happen, over interruptions, until it has ended."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Final

from ..errors import StoreUnavailableError
from .calls import EVENTS_PER_PAGE, events, path_of, study
from .replies import Event
from .steps import Call, Item, ItemSteps, NextLine, Pause

ENDED: Final = frozenset({"completed", "stopped", "failed"})
"""States of a study that has ended."""
_ENDS: Final = frozenset({f"study.{state}" for state in ENDED})
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 10.0


def watch(name: str, *, after: int = 0, patience_seconds: float = 300.0) -> ItemSteps[Event]:
    """Iterate over the events of a study as they happen, from the one after the id `after` on, until it has ended.

    When the connection is lost or the service is away, it is asked again where the last event left off: no event is
    missed and none comes twice.

    Args:
        patience_seconds: how long the service may be away before the error is raised. The first connection has none:
            a wrong address is reported at once.

    Raises:
        NotFoundError: there is no such study, or it was deleted meanwhile.
    """
    place, away_since, has_answered = _Place(after), 0.0, False
    while True:
        try:
            has_ended = (yield from study(name))["state"] in ENDED
            has_answered, place.is_at_end = True, False
            yield from _past(name, place)
            if has_ended:
                return
            if not place.is_at_end:  # else it ended while these were read: nothing more comes, unless it is reopened
                yield from _coming(name, place)
        except StoreUnavailableError:
            away_since = away_since if place.failures else time.monotonic()
            if not has_answered or (place.failures and time.monotonic() - away_since >= patience_seconds):
                raise
            yield Pause(min(_FIRST_PAUSE_SECONDS * 2**place.failures, _LONGEST_PAUSE_SECONDS))
            place.failures += 1


@dataclass(slots=True)
class _Place:
    """How far the events of a study were handed out; it is kept where the connection is lost."""

    after: int
    """Id of the last event."""
    is_at_end: bool = False
    """Whether an end of the study was among the events since it was last looked at."""
    failures: int = 0
    """Connections in a row that gave nothing of the stream."""

    def handed_out(self, event: Event) -> Item[Event]:
        self.after = event["id"]
        self.is_at_end = self.is_at_end or event["kind"] in _ENDS
        return Item(event)


def _past(name: str, place: _Place) -> ItemSteps[Event]:
    while page := (yield from events(name, after=place.after, limit=EVENTS_PER_PAGE)):
        for event in page:
            yield place.handed_out(event)


def _coming(name: str, place: _Place) -> ItemSteps[Event]:
    call: Call[None] = Call("GET", path_of(name, "events", "stream"), lambda _: None, params={"after": place.after})
    while not place.is_at_end and (line := (yield NextLine(call))) is not None:
        place.failures = 0
        if (event := _event_in(line)) is not None:
            yield place.handed_out(event)


def _event_in(line: str) -> Event | None:
    """Return the event in a line of the stream; None for lines around it, and for the progress of running trials."""
    if not line.startswith("data:"):
        return None
    found: Event = json.loads(line.removeprefix("data:"))
    return found if "id" in found else None
