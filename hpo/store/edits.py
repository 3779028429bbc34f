"""Changing what a study searches, when it stops trials early, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, text, update

from ..errors import ConflictError, SpecError, SpecIssue, StudyExistsError
from ..spec import StudySpec, dump_spec
from ..spec.widening import narrowed
from ..trial import TrialState
from . import budgets, events, trials
from .study_row import StudyRow, get, get_by_id
from .study_state import lock
from .tables import study, worker
from .workers import ALIVE_SECONDS

_TAKEN: Final = text("SELECT EXISTS (SELECT FROM study WHERE name = :name)")
_BOUND: Final = text("""
SELECT name FROM worker
WHERE study = :study AND last_seen > clock_timestamp() - make_interval(secs => :alive_seconds)
ORDER BY name
""")
_LEARNING: Final = text("SELECT id, spec FROM study WHERE spec #> '{optimizer,warm_start}' ? :name FOR NO KEY UPDATE")
_SOURCES: Final = text("UPDATE earlier_trial SET source = :new WHERE source = :old AND study_id = ANY(:ids)")
_FORGET_MARKS: Final = text("DELETE FROM mark WHERE study_id = :study_id")


def change(
    connection: Connection, name: str, changes: Mapping[str, Any], *, actor: str, revision: int | None = None
) -> StudyRow:
    """Give a study that has not ended another budget, stopping rule or a wider space, in one step.

    Args:
        changes: of `budget` and of the parameters of `space`, the fields that change; `early_stopping` as a whole.
        revision: that of the spec that the changes were made from; None for whatever it is now.

    Raises:
        NotFoundError: there is no such study.
        SpecError: names what is wrong with a change.
        ConflictError: the study has ended or is ending, has another revision, or has trials that the change forbids.
    """
    found = budgets.lock_open(connection, name, revision)
    document = dump_spec(found.spec)
    wanted = dict(document)
    if "budget" in changes:
        wanted["budget"] = {**document["budget"], **changes["budget"]}
    if "early_stopping" in changes:
        wanted["early_stopping"] = changes["early_stopping"]
    if "space" in changes:
        wanted["space"] = _merged(document["space"], changes["space"])
    spec = budgets.checked(wanted)
    budgets.require_room(found, spec)
    if spec == found.spec:
        return found
    _require_wider(connection, found, spec)
    more: dict[str, Any] = {}
    if spec.early_stopping != found.spec.early_stopping:
        connection.execute(_FORGET_MARKS, {"study_id": found.id})  # they are made anew when they are first needed
        more = {"marked": False}
    budgets.keep(connection, found, spec, **more)
    detail = {**changes, "budget": {key: wanted["budget"][key] for key in changes.get("budget", {})}}
    events.append(
        connection, found.id, None, "study.edited", actor, {key: value for key, value in detail.items() if value}
    )
    return get_by_id(connection, found.id)


def _merged(space: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    unknown = [
        SpecIssue(
            path=f"space.{key}", message=f"no parameter of this study, and none can be added; it has {', '.join(space)}"
        )
        for key in changes
        if key not in space
    ]
    if unknown:
        raise SpecError(unknown)
    return {key: {**parameter, **changes.get(key, {})} for key, parameter in space.items()}


def _require_wider(connection: Connection, found: StudyRow, spec: StudySpec) -> None:
    issues = [SpecIssue(path=f"space.{key}", message=why) for key, why in narrowed(found.spec.space, spec.space)]
    if issues:
        raise SpecError(issues)
    if spec.space == found.spec.space:
        return
    for record in trials.outlines(connection, found.id):
        if record.state is TrialState.WITHDRAWN:
            continue
        try:
            spec.check_params(record.params)
        except ValueError as error:
            raise ConflictError(f"trial {record.number} would not be one of the wider space: {error}") from error


def rename(connection: Connection, name: str, new_name: str, *, actor: str) -> StudyRow:
    """Call a study by another name, also where other studies say that they have learned from it.

    Raises:
        NotFoundError: there is no such study.
        StudyExistsError: the new name is taken.
        ConflictError: a live worker takes trials of this study alone, by its name.
    """
    lock(connection, name)
    found = get(connection, name)
    if new_name == name:
        return found
    if connection.execute(_TAKEN, {"name": new_name}).scalar_one():
        raise StudyExistsError(f"a study named {new_name!r} exists already; choose another name")
    bound = connection.execute(_BOUND, {"study": name, "alive_seconds": ALIVE_SECONDS}).scalars().all()
    if bound:
        raise ConflictError(
            f"{'workers take' if len(bound) > 1 else 'a worker takes'} trials of {name!r} by this name "
            f"({', '.join(bound[:5])}): end them, rename the study, and start them with the new name"
        )
    spec = budgets.checked({**dump_spec(found.spec), "name": new_name})
    budgets.keep(connection, found, spec, name=new_name)
    connection.execute(update(worker).where(worker.c.study == name).values(study=new_name))
    learning = connection.execute(_LEARNING, {"name": name}).all()
    for row in learning:
        optimizer = row.spec["optimizer"]
        named = [new_name if one == name else one for one in optimizer["warm_start"]]
        changed = {**row.spec, "optimizer": {**optimizer, "warm_start": named}}
        connection.execute(update(study).where(study.c.id == row.id).values(spec=changed))
    connection.execute(_SOURCES, {"old": name, "new": new_name, "ids": [row.id for row in learning]})
    events.append(connection, found.id, None, "study.renamed", actor, {"old": name, "new": new_name})
    return get_by_id(connection, found.id)
