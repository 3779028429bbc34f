"""Studies: create, list, look at, pause, resume, stop, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from hpo.results.outcome import final_metrics
from hpo.spec import StudySpec
from hpo.store import earlier, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import StudyState, TrialState

from ..auth.scopes import BEARER, Admin, Reader
from ..problems import responses
from ..state import State
from .names import StudyName
from .spec_body import Spec, openapi_body

router = APIRouter(prefix="/v1/studies", tags=["studies"], dependencies=[Depends(BEARER)])


class BestValue(BaseModel):
    """The best value of the first objective so far, and the trial that has it."""

    number: int
    metric: str
    value: float


class StudySummary(BaseModel):
    """A study as it appears in a list."""

    name: str
    state: StudyState
    state_reason: str | None
    created_at: datetime
    finished_at: datetime | None
    gpu_hours_spent: float
    gpu_hours_saved: float
    """GPU hours of the epochs that early stopping has spared, at what the epochs of each trial have cost."""
    trial_counts: dict[TrialState, int]
    """How many trials are in each state; states without any are left out."""
    guesses_waiting: int
    """Configurations that people asked for and that have not become trials yet."""
    best: BestValue | None


class StudyDetail(StudySummary):
    """A study with its spec."""

    id: int
    revision: int
    """Always 1, since the spec of a study does not change."""
    spec: StudySpec
    earlier_trials: dict[str, int]
    """How many trials were taken over from each study that this one starts from."""


@router.post(
    "",
    status_code=201,
    responses=responses(409, 413, 415),
    operation_id="create_study",
    openapi_extra=openapi_body(),
)
def create_study(state: State, who: Admin, body: Spec, response: Response) -> StudyDetail:
    """Create a study from its spec, sent as JSON or YAML. A spec with an error stores nothing."""
    spec = body.parse(state.fragments)
    if state.check_spec is not None:
        spec = state.check_spec(spec)
    with state.database.transaction() as connection:
        study = studies.create(connection, spec, actor=who.name)
        response.headers["Location"] = f"/v1/studies/{study.name}"
        return _detail(connection, study)


@router.get("", responses=responses(), operation_id="list_studies")
def list_studies(state: State, _: Reader) -> list[StudySummary]:
    """List all studies, without their specs."""
    with state.database.transaction() as connection:
        return [StudySummary(**_fields(connection, row)) for row in studies.list_all(connection)]


@router.get("/{name}", responses=responses(404), operation_id="get_study")
def get_study(state: State, _: Reader, name: StudyName) -> StudyDetail:
    """Show a study with its spec, its progress and its best value."""
    with state.database.transaction() as connection:
        return _detail(connection, studies.get(connection, name))


@router.post("/{name}/pause", responses=responses(404, 409), operation_id="pause_study")
def pause_study(state: State, who: Admin, name: StudyName) -> StudyDetail:
    """Pause a study: running trials write a checkpoint and wait, nothing new begins."""
    return _move(state, name, StudyState.PAUSED, actor=who.name)


@router.post("/{name}/resume", responses=responses(404, 409), operation_id="resume_study")
def resume_study(state: State, who: Admin, name: StudyName) -> StudyDetail:
    """Resume a paused study: paused trials continue first."""
    return _move(state, name, StudyState.ACTIVE, actor=who.name)


@router.post("/{name}/stop", responses=responses(404, 409), operation_id="stop_study")
def stop_study(state: State, who: Admin, name: StudyName) -> StudyDetail:
    """Stop a study for good: running trials end early with what they have, nothing new begins."""
    return _move(state, name, StudyState.STOPPED, actor=who.name)


@router.delete("/{name}", status_code=204, responses=responses(404, 409), operation_id="delete_study")
def delete_study(state: State, who: Admin, name: StudyName) -> None:
    """Delete a study with its trials and curves. Checkpoint files stay where they are."""
    with state.database.transaction() as connection:
        studies.delete(connection, name, actor=who.name)


def _move(state: State, name: str, target: StudyState, *, actor: str) -> StudyDetail:
    with state.database.transaction() as connection:
        return _detail(connection, studies.set_state(connection, name, target, actor=actor))


def _detail(connection: Connection, study: StudyRow) -> StudyDetail:
    return StudyDetail(
        **_fields(connection, study),
        id=study.id,
        revision=1,
        spec=study.spec,
        earlier_trials=earlier.counts(connection, study.id, study.spec),
    )


def _fields(connection: Connection, study: StudyRow) -> dict[str, Any]:
    return {
        "name": study.name,
        "state": study.state,
        "state_reason": study.state_reason,
        "created_at": study.created_at,
        "finished_at": study.finished_at,
        "gpu_hours_spent": study.gpu_seconds_spent / 3600,
        "gpu_hours_saved": study.gpu_seconds_saved / 3600,
        "trial_counts": study.counts,
        "guesses_waiting": len(study.waiting_guesses),
        "best": _best(connection, study),
    }


def _best(connection: Connection, study: StudyRow) -> BestValue | None:
    record = trials.best(connection, study)
    if record is None:
        return None
    metric = study.spec.objectives[0].metric
    return BestValue(number=record.number, metric=metric, value=final_metrics(record)[metric])
