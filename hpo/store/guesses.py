"""What people ask to be tried in a study: kept in order, and never twice the same."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, update

from ..errors import ConflictError, GuessError, SpecIssue
from ..spec import StudySpec
from ..spec.guesses import broken_by, problems_of
from ..trial import ENQUEUED, Params, StudyState, TrialState
from . import events
from .study_row import StudyRow, get
from .study_state import lock
from .tables import study, trial


def enqueue(connection: Connection, name: str, guesses: Sequence[Params], *, actor: str) -> int:
    """Keep `guesses` for the optimizer, which tries them next; return the number of those not asked for before.

    Raises:
        NotFoundError: there is no such study.
        GuessError: a guess is not in the space, or breaks a rule.
        ConflictError: the study has ended, or its budget has no room for them.
    """
    # Whether guesses keep the rules can take seconds to find out, for which no worker should wait; specs never change.
    _check(get(connection, name).spec, guesses)
    lock(connection, name)
    found = get(connection, name)
    new: list[Params] = []
    for guess in guesses:
        if guess not in found.guesses and guess not in new:
            new.append(dict(guess))
    if not new:
        return 0
    has_ended = found.state in (StudyState.STOPPED, StudyState.COMPLETED, StudyState.FAILED)
    if has_ended or found.budget_reached_at is not None:
        raise ConflictError(f"the study {name!r} has ended; nothing more is tried in it")
    if found.search_ended_at is not None:
        raise ConflictError(f"the search of {name!r} has ended; only its best configurations are trained again")
    room = _room(connection, found)
    if room is not None and len(new) > room:
        raise ConflictError(f"the budget of {name!r} has room for {room} more trials, not for {len(new)}")
    connection.execute(update(study).where(study.c.id == found.id).values(guesses=[*found.guesses, *new]))
    for guess in new:
        events.append(connection, found.id, None, "study.enqueued", actor, {"params": dict(guess)})
    return len(new)


def _check(spec: StudySpec, guesses: Sequence[Params]) -> None:
    issues = [
        SpecIssue(path=f"guesses[{place}]" + (f".{key}" if key else ""), message=message)
        for place, guess in enumerate(guesses)
        for key, message in problems_of(spec.space, guess)
    ] or [SpecIssue(path=f"guesses[{place}]", message=message) for place, message in broken_by(spec.rulebook, guesses)]
    if issues:
        raise GuessError(issues)


def _room(connection: Connection, found: StudyRow) -> int | None:
    """Return how many more guesses can become trials: suggestions of the optimizer that nobody has claimed make way."""
    if found.spec.budget.trials is None:
        return None
    unclaimed = select(func.count()).where(
        trial.c.study_id == found.id,
        trial.c.state == TrialState.SUGGESTED,
        trial.c.attempt == 0,
        trial.c.generator != ENQUEUED,
        trial.c.replicate_of.is_(None),
    )
    taken = found.live_trials - int(connection.execute(unclaimed).scalar_one()) + len(found.waiting_guesses)
    return max(0, found.spec.budget.trials - taken)
