"""Finalists in the store: people ask for them, the search ends for them, an ended study is opened again for them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Final

from sqlalchemy import Connection, func, select, update

from ..errors import ConflictError
from ..spec.finalists import FinalistsConfig
from ..trial import FINALISTS, REPLICATE, RESULT_STATES, StudyState, TrialRecord, TrialState
from . import events, lifecycle, trials
from .study_row import Race, StudyRow, get, get_by_id
from .study_state import lock
from .tables import NOW, study, trial

_ASKED: Final = "finalists were asked for"


def ask_for(
    connection: Connection, name: str, wanted: FinalistsConfig, *, end_search: bool = False, actor: str
) -> StudyRow:
    """Have the best configurations of a study trained again, instead of what was asked for before.

    In a study that searches it happens when the search ends, and at once with `end_search`. A study that has ended
    becomes active again, and may use the share of its budget beyond it.

    Raises:
        NotFoundError: there is no such study.
        ConflictError: the study is just ending, has no result, or cannot train a configuration again.
    """
    lock(connection, name)
    found = get(connection, name)
    _check(connection, found, wanted)
    events.append(connection, found.id, None, "study.finalists", actor, wanted.model_dump())
    connection.execute(update(study).where(study.c.id == found.id).values(finalists=wanted.model_dump()))
    found = get_by_id(connection, found.id)
    if found.finished_at is not None:
        _open_again(connection, found)
    elif found.race is not None:
        race = _race(connection, found, reason=found.race.reason)
        connection.execute(update(study).where(study.c.id == found.id).values(race=asdict(race)))
    elif end_search:
        begin(connection, found, reason=_ASKED, actor=actor)
    return get_by_id(connection, found.id)


def begin(connection: Connection, found: StudyRow, *, reason: str, actor: str) -> bool:
    """End the search of a study for its finalists; return False if that was done already.

    What searches and still runs stops with its next report.
    """
    marked = connection.execute(
        update(study)
        .where(study.c.id == found.id, study.c.search_ended_at.is_(None), study.c.budget_reached_at.is_(None))
        .values(
            search_ended_at=NOW,
            race=asdict(_race(connection, found, reason=reason)),
            state_reason=f"{reason}; the best configurations are trained again",
        )
    )
    if not marked.rowcount:
        return False
    events.append(connection, found.id, None, "study.search_ended", actor, {"reason": reason})
    lifecycle.withdraw(connection, found.id, actor=actor)
    lifecycle.close(connection, found.id, actor=actor)
    return True


def train_again(connection: Connection, name: str, number: int, *, actor: str) -> TrialRecord:
    """Have the configuration of a trial trained again with another seed, before what the optimizer proposes.

    Raises:
        NotFoundError: there is no such study, or no such trial.
        ConflictError: the study has ended, nobody has claimed the trial yet, it was taken out of the study, or its seed
            is a parameter of the space.
    """
    lock(connection, name)
    found = get(connection, name)
    asked = trials.get(connection, found.id, number)
    if (reason := found.spec.no_fresh_seed()) is not None:
        raise ConflictError(reason)
    if asked.state is TrialState.WITHDRAWN:
        raise ConflictError(f"trial {number} of {name!r} was taken out of the study; enqueue its configuration again")
    if not asked.attempt and asked.origin is None:
        raise ConflictError(f"trial {number} of {name!r} has not begun yet; it can be trained again once it has")
    record = lifecycle.replicate(connection, found.id, number, generator=REPLICATE, actor=actor)
    if record is None:
        raise ConflictError(
            f"the study {name!r} has ended; `hpo finalists {name}` trains its best configurations again"
        )
    return record


def _check(connection: Connection, found: StudyRow, wanted: FinalistsConfig) -> None:
    if (reason := found.spec.no_fresh_seed()) is not None:
        raise ConflictError(reason)
    if found.finished_at is None and (found.state is StudyState.STOPPED or found.budget_reached_at is not None):
        raise ConflictError(f"the study {found.name!r} is ending; ask again when its last trials have ended")
    limit = found.spec.budget.trials
    if not wanted.most_of(limit):
        raise ConflictError(f"{wanted.share:g} of {limit} trials is less than one training; ask for a greater share")
    has_result = select(trial.c.id).where(trial.c.study_id == found.id, trial.c.state.in_(RESULT_STATES)).exists()
    if found.finished_at is not None and not connection.execute(select(has_result)).scalar_one():
        raise ConflictError(f"no trial of {found.name!r} has a result, so there is nothing to train again")


def _open_again(connection: Connection, found: StudyRow) -> None:
    """Let an ended study, locked before, train its finalists; the share of its hours comes on top of what was used."""
    share, budget = (found.finalists or FinalistsConfig()).share, found.spec.budget
    race = _race(connection, found, reason=found.state_reason or _ASKED)
    if budget.gpu_hours is not None:
        race = replace(race, gpu_seconds=found.gpu_seconds_spent + share * budget.gpu_hours * 3600)
    if budget.wall_hours is not None:
        race = replace(race, wall_seconds=found.wall_seconds_spent + share * budget.wall_hours * 3600)
    # A person's stop ended the search, too, and what it closed was not stopped early.
    last = study.c.state_changed_at if found.state is StudyState.STOPPED else study.c.finished_at
    ended = func.coalesce(study.c.search_ended_at, study.c.budget_reached_at, last)
    connection.execute(
        update(study)
        .where(study.c.id == found.id)
        .values(
            state=StudyState.ACTIVE,
            state_reason="the best configurations are trained again",
            state_changed_at=NOW,
            finished_at=None,
            budget_reached_at=None,
            too_many_failed=False,
            search_ended_at=ended,
            race=asdict(race),
        )
    )


def _race(connection: Connection, found: StudyRow, *, reason: str) -> Race:
    before = connection.execute(
        select(func.count()).where(
            trial.c.study_id == found.id, trial.c.generator == FINALISTS, trial.c.state != TrialState.WITHDRAWN
        )
    ).scalar_one()
    limit = found.spec.budget.trials
    unused = 0 if limit is None else max(limit - found.live_trials, 0)
    most = (found.finalists or FinalistsConfig()).most_of(limit, unused=unused)
    return Race(
        trials=int(before) + most,
        gpu_seconds=found.gpu_seconds_limit,
        wall_seconds=found.wall_seconds_limit,
        reason=reason,
    )
