"""Changing the budget of a study, and giving one that has ended more to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Connection, text, update

from ..errors import ConflictError, SpecError
from ..spec import StudySpec, dump_spec
from ..spec.issues import issues_of
from ..trial import StudyState
from . import events
from .statements import execute
from .study_row import StudyRow, get, get_by_id
from .study_state import lock, move
from .tables import study

_WITHDRAWN_GUESSES: Final = text("""
SELECT params FROM trial AS gone
WHERE study_id = :study_id AND generator = 'enqueued' AND state = 'withdrawn' AND NOT cancel_requested
  AND NOT EXISTS (SELECT FROM trial AS other WHERE other.study_id = :study_id AND other.params = gone.params
                                               AND other.state <> 'withdrawn')
GROUP BY params ORDER BY min(number)
""")
"""What people asked for and nobody had claimed when the study ended: it is tried once the study goes on."""


def change_budget(
    connection: Connection, name: str, changes: Mapping[str, Any], *, actor: str, revision: int | None = None
) -> StudyRow:
    """Give a study that has not ended other limits: `changes` are fields of its budget, None for no limit.

    `revision` is that of the spec that the changes were made from; None for whatever it is now.

    Raises:
        NotFoundError: there is no such study.
        SpecError: names what is wrong with the budget.
        ConflictError: the study has ended or is ending, has more trials than the new limit, or another revision.
    """
    found = lock_open(connection, name, revision)
    _write(connection, found, changes, actor=actor)
    return get_by_id(connection, found.id)


def lock_open(connection: Connection, name: str, revision: int | None) -> StudyRow:
    """Return a study that searches, locked.

    Raises:
        NotFoundError: there is no such study.
        ConflictError: it has ended or is ending, or has another revision.
    """
    lock(connection, name)
    found = get(connection, name)
    if found.finished_at is not None:
        raise ConflictError(f"the study {name!r} has ended; `hpo study reopen {name}` gives it more to do")
    if found.state is StudyState.STOPPED or found.budget_reached_at is not None:
        raise ConflictError(f"the study {name!r} is ending; reopen it when its last trials have ended")
    if found.race is not None:
        raise ConflictError(f"the finalists of {name!r} are being trained; reopen it when they are done")
    _refuse_other(found, revision)
    return found


def open_again(
    connection: Connection, name: str, changes: Mapping[str, Any], *, actor: str, revision: int | None = None
) -> StudyRow:
    """Let a study that has ended search on, with the budget changed as in `change_budget`.

    Raises:
        NotFoundError: there is no such study.
        SpecError: names what is wrong with the budget.
        ConflictError: the study has not ended, has more trials than the new limit, or another revision.
    """
    lock(connection, name)
    found = get(connection, name)
    if found.finished_at is None:
        hint = "it is ending; try again when its last trials have ended"
        if found.state is not StudyState.STOPPED and found.budget_reached_at is None:
            hint = f"`hpo study edit {name}` changes its budget"
        raise ConflictError(f"the study {name!r} has not ended: {hint}")
    _refuse_other(found, revision)
    _write(connection, found, changes, actor=actor)
    execute(connection, "reopen", study_id=found.id)
    again = [row.params for row in connection.execute(_WITHDRAWN_GUESSES, {"study_id": found.id})]
    connection.execute(
        update(study)
        .where(study.c.id == found.id)
        # In the statement of the state: the tables know no ended study that is active.
        .values(
            state=StudyState.ACTIVE,
            finished_at=None,
            budget_reached_at=None,
            too_many_failed=False,
            search_ended_at=None,
            race=None,
            guesses=[*found.guesses, *(params for params in again if params not in found.waiting_guesses)],
        )
    )
    move(connection, found.id, StudyState.ACTIVE, None, actor)
    return get_by_id(connection, found.id)


def _refuse_other(found: StudyRow, revision: int | None) -> None:
    if revision not in (None, found.revision):
        raise ConflictError(f"somebody has changed the study {found.name!r} since you loaded it; load it again")


def _write(connection: Connection, found: StudyRow, changes: Mapping[str, Any], *, actor: str) -> None:
    document = dump_spec(found.spec)
    budget = {**document["budget"], **changes}
    spec = checked({**document, "budget": budget})
    require_room(found, spec)
    if spec.budget == found.spec.budget:
        return
    keep(connection, found, spec)
    detail = {"budget": {key: budget[key] for key in changes}}
    events.append(connection, found.id, None, "study.edited", actor, detail)


def checked(document: Mapping[str, Any]) -> StudySpec:
    """Return a spec that was changed.

    Raises:
        SpecError: names what is wrong with it.
    """
    try:
        return StudySpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(issues_of(error)) from error


def require_room(found: StudyRow, spec: StudySpec) -> None:
    """Raise ConflictError where a study has more trials than a changed spec allows."""
    limit = spec.budget.trials
    if limit is not None and limit < found.live_trials:
        raise ConflictError(f"the study {found.name!r} has {found.live_trials} trials already, more than {limit}")


def keep(connection: Connection, found: StudyRow, spec: StudySpec, **more: Any) -> None:
    """Store a changed spec as the next revision, with other columns of the study."""
    values = {"spec": dump_spec(spec), "revision": study.c.revision + 1, **more}
    connection.execute(update(study).where(study.c.id == found.id).values(values))
