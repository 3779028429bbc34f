"""Studies: making, finding, pausing, ending and deleting them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, insert, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError

from ..errors import ConflictError, StudyExistsError
from ..spec import StudySpec, dump_spec
from ..trial import StudyState, TrialState
from . import checkpoints, earlier, events, lifecycle
from .generators import acquire as acquire_generator
from .generators import release as release_generator
from .generators import release_all as release_generators
from .guesses import enqueue
from .study_row import StudyRow, get, get_by_id, id_of, list_all, list_unfinished, list_unreadable, outline_of
from .study_state import lock, move
from .tables import study, trial

__all__ = [
    "DeletedStudy",
    "StudyRow",
    "acquire_generator",
    "create",
    "delete",
    "enqueue",
    "get",
    "get_by_id",
    "id_of",
    "list_all",
    "list_unfinished",
    "list_unreadable",
    "outline_of",
    "release_generator",
    "release_generators",
    "require_free",
    "set_state",
]

_ALLOWED: Final = {
    StudyState.PAUSED: {StudyState.ACTIVE},
    StudyState.ACTIVE: {StudyState.PAUSED},
    StudyState.STOPPED: {StudyState.ACTIVE, StudyState.PAUSED},
}


def create(connection: Connection, spec: StudySpec, *, actor: str) -> StudyRow:
    """Store a new study; it is active at once.

    Raises:
        StudyExistsError: there is one of that name.
        SpecError: it starts from a study that there is not.
    """
    found = earlier.find(connection, spec)
    try:
        with connection.begin_nested():
            values = {
                "name": spec.name,
                "spec": dump_spec(spec),
                "guesses": list(spec.optimizer.enqueue),
                "marked": True,
                "finalists": None if spec.finalists is None else spec.finalists.model_dump(),
            }
            study_id = connection.execute(insert(study).values(values).returning(study.c.id)).scalar_one()
    except IntegrityError as error:
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != "study_name_key":
            raise
        raise _exists(spec.name) from error
    events.append(connection, study_id, None, "study.created", actor, {"name": spec.name})
    earlier.keep(connection, study_id, found, actor=actor)
    return get_by_id(connection, study_id)


def require_free(connection: Connection, name: str) -> None:
    """Raise StudyExistsError where a study of that name could not be stored."""
    if connection.execute(select(study.c.id).where(study.c.name == name)).first() is not None:
        raise _exists(name)


def _exists(name: str) -> StudyExistsError:
    return StudyExistsError(f"a study named {name!r} exists already; choose another name, or delete that one")


def set_state(
    connection: Connection, name: str, target: StudyState, *, reason: str | None = None, actor: str
) -> StudyRow:
    """Pause, resume or stop a study; nothing happens when it is in that state already.

    Running trials learn of it with their next report. Stopping withdraws what nobody has claimed.

    Raises:
        NotFoundError: there is no such study.
        ConflictError: the study cannot go there from where it is.
    """
    lock(connection, name)
    found = get(connection, name)
    if found.state is target:
        return found
    if found.state not in _ALLOWED.get(target, set()):
        raise ConflictError(f"the study {name!r} is {found.state} and cannot become {target}")
    move(connection, found.id, target, reason, actor)
    if target is StudyState.STOPPED:
        lifecycle.withdraw(connection, found.id, actor=actor)
        lifecycle.close(connection, found.id, actor=actor)
    return get_by_id(connection, found.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedStudy:
    """What a deleted study leaves behind on machines that this database does not reach."""

    uuid: UUID
    hosts: tuple[str, ...]
    """Where its trials ran, as far as it is known."""
    earlier_folders: tuple[str, ...]
    """Folders of its checkpoints that releases up to 0.2.0 named by its number, on those machines."""


def delete(connection: Connection, name: str, *, actor: str) -> DeletedStudy:
    """Delete a study with its trials and events, and return what it leaves.

    Raises:
        NotFoundError: there is no such study.
        ConflictError: trials of it are running.
    """
    lock(connection, name)
    found = get(connection, name)
    states = connection.execute(select(trial.c.state).where(trial.c.study_id == found.id).with_for_update()).scalars()
    running = sum(state == TrialState.RUNNING for state in states)
    if running:
        raise ConflictError(f"{running} trials of {name!r} are running; stop the study and wait until they have ended")
    left = DeletedStudy(
        uuid=found.uuid,
        hosts=tuple(checkpoints.hosts(connection, found.id)),
        earlier_folders=tuple(checkpoints.earlier_folders(connection, found.id, found.uuid)),
    )
    connection.execute(sql_delete(study).where(study.c.id == found.id))
    # Whoever finds files of it later learns from this event that nobody needs them any more.
    detail = {"name": name, "trials": sum(found.counts.values()), "uuid": str(found.uuid)}
    events.append(connection, None, None, "study.deleted", actor, detail)
    return left
