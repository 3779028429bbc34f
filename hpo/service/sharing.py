"""Which optimizer serves which study: as many each as the others, and none moves without need.

Every optimizer works it out for itself from what it reads. Two that have read different things may differ for a moment;
the lease on a study decides then, so that nothing depends on their agreement.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ..store.optimizers import OptimizerRow

LOOK_SECONDS: Final = 1.0
"""How often an optimizer looks, between the steps of a round, whether it has more than its share of the studies."""
READY_SECONDS: Final = 5.0
"""One that has not begun a round for so long is busy, and gets no further study."""
FREE_SECONDS: Final = 5.0
"""A study that nobody has served for so long is anybody's, whosever share it is."""


class Share:
    """Which studies one optimizer should serve, by what it has seen last."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._owners: Mapping[int, str | None] = {}
        self._wanted: Mapping[int, str] = {}
        self._free_since: dict[int, float] = {}
        self._seen_at = 0.0

    @property
    def studies(self) -> Collection[int]:
        """All that searched when it was worked out, whosever they are."""
        return self._owners.keys()

    @property
    def is_old(self) -> bool:
        """Whether it should be worked out anew."""
        return time.monotonic() - self._seen_at >= LOOK_SECONDS

    def work_out(
        self,
        owners: Mapping[int, str | None],
        alive: Sequence[OptimizerRow],
        failed: Mapping[int, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Take what was read: who holds the lease of each study that searches, the optimizers that live, who failed."""
        now = self._seen_at = time.monotonic()
        free = [study_id for study_id, owner in owners.items() if owner is None]
        self._free_since = {study_id: self._free_since.get(study_id, now) for study_id in free}
        self._owners = owners
        self._wanted = shares(owners, {one.owner: one.seconds_since_look < READY_SECONDS for one in alive}, failed)

    def surplus(self) -> dict[int, str]:
        """Return the studies that the optimizer holds beyond its share, and whose they should be."""
        held = [study_id for study_id, owner in self._owners.items() if owner == self._owner]
        return {study_id: self._wanted[study_id] for study_id in held if self._wanted[study_id] != self._owner}

    def leaves(self, study_id: int) -> bool:
        """Return whether a study is left to the optimizer whose share it is, as long as that may take it soon."""
        free_since = self._free_since.get(study_id)
        is_anybodys = free_since is not None and time.monotonic() - free_since >= FREE_SECONDS
        return self._wanted.get(study_id, self._owner) != self._owner and not is_anybodys


def shares(
    owners: Mapping[int, str | None],
    optimizers: Mapping[str, bool],
    failed: Mapping[int, Collection[str]] = MappingProxyType({}),
) -> dict[int, str]:
    """Return who should serve each study.

    A study stays where it is unless its optimizer has two more than one that has time. Then the newest goes there: it
    has the fewest trials, so that its new optimizer knows them soonest.

    Args:
        owners: by study, the optimizer that holds its lease; None while nobody does.
        optimizers: those that live, and whether they have time for another study. Others that hold a lease, such as one
            of an earlier release, keep what they have.
        failed: by study, the optimizers in which it has raised an error. They get it only where no other has time.
    """
    held: dict[str, list[int]] = {owner: [] for owner in sorted(optimizers)}
    for study_id, owner in sorted(owners.items()):
        if owner is not None:
            held.setdefault(owner, []).append(study_id)
    ready = [owner for owner in held if optimizers.get(owner)]
    if ready:
        for study_id in sorted(study_id for study_id, owner in owners.items() if owner is None):
            able = [owner for owner in ready if owner not in failed.get(study_id, ())]
            held[min(able or ready, key=lambda owner: len(held[owner]))].append(study_id)
        _even_out(ready, held, failed, givers=[owner for owner in held if owner in optimizers])
    return {study_id: owner for owner, study_ids in held.items() for study_id in study_ids}


def _even_out(
    ready: list[str], held: dict[str, list[int]], failed: Mapping[int, Collection[str]], *, givers: list[str]
) -> None:
    while (move := _next_move(ready, held, failed, givers)) is not None:
        study_id, giver, taker = move
        held[giver].remove(study_id)
        held[taker].append(study_id)


def _next_move(
    ready: list[str], held: dict[str, list[int]], failed: Mapping[int, Collection[str]], givers: list[str]
) -> tuple[int, str, str] | None:
    for giver in sorted(givers, key=lambda owner: -len(held[owner])):
        for taker in sorted(ready, key=lambda owner: len(held[owner])):
            if len(held[giver]) - len(held[taker]) < 2:  # with one they would only change places
                break
            able = [study_id for study_id in held[giver] if taker not in failed.get(study_id, ())]
            if able:
                return max(able), giver, taker
    return None
