"""After the search: train the best configurations of a study again until one of them is clear.

Everything follows from the rows of the study and its trials. No process owns this phase: whoever ends a trial or does
the upkeep calls `advance`, and of two who have read the same trials only one adds what follows from them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from ..answer.race import Room, next_trainings
from ..store import answers, finalists, lifecycle, trials
from ..store.study_row import StudyRow, get_by_id
from ..trial import FINALISTS, StudyState, TrialRecord
from .limits import is_search_open

ACTOR: Final = "finalists"


def advance(connection: Connection, found: StudyRow, *, search_is_over: str | None) -> str | None:
    """Begin or continue to train the finalists of a study; return why nothing is left to train, None while it goes on.

    `search_is_over` says why no trial of the search can begin any more; None while one can.
    """
    if found.finalists is None or found.state is not StudyState.ACTIVE or found.budget_reached_at is not None:
        return None
    if found.race is None:
        if search_is_over is None:
            return None
        finalists.begin(connection, found, reason=search_is_over, actor=ACTOR)
        found = get_by_id(connection, found.id)
    if is_search_open(connection, found):
        # What was given back since then does not begin again; what runs stops with its next report.
        lifecycle.withdraw(connection, found.id, actor=ACTOR)
        lifecycle.close(connection, found.id, actor=ACTOR)
        if is_search_open(connection, found):
            return None
    return _train(connection, found)


def _train(connection: Connection, found: StudyRow) -> str | None:
    if found.race is None or found.finalists is None:
        return None
    records = trials.outlines(connection, found.id)
    best = answers.read(connection, found)
    if best is None:
        return found.race.reason
    room = Room(
        trials=found.race.trials,
        at_once=max(1, trials.demand(connection, found.id)),
        epochs=found.spec.task.epochs,
        gpu_seconds=_gpu_seconds_left(found),
        startup_seconds=found.gpu_seconds_of_startup / max(found.with_epochs, 1),
    )
    following = next_trainings(best, records, found.finalists, room)
    _add(connection, found, records, following.trials)
    return None if following.over is None else f"{found.race.reason}; {following.over}"


def _gpu_seconds_left(found: StudyRow) -> float | None:
    limits = [(found.gpu_seconds_limit, found.gpu_seconds_spent), (found.wall_seconds_limit, found.wall_seconds_spent)]
    # A training takes at least its device time by the clock.
    left = [limit - spent for limit, spent in limits if limit is not None]
    return min(left, default=None)


def _add(connection: Connection, found: StudyRow, records: list[TrialRecord], numbers: tuple[int, ...]) -> None:
    coming = max((record.number for record in records), default=-1) + 1
    for place, number in enumerate(numbers):
        if (
            lifecycle.replicate(
                connection, found.id, number, generator=FINALISTS, actor=ACTOR, next_number=coming + place
            )
            is None
        ):
            return
