"""Studies: create, list, look at, pause, resume, stop, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt
from sqlalchemy import Connection

from hpo.answer.evidence import evidence_of_winner
from hpo.optimizer.importance import Trend
from hpo.protocol import Message, RemovedFiles
from hpo.results.evidence import Evidence
from hpo.service import creation, data_versions, importance, notices, reopening
from hpo.service.finishing import end_finished_studies
from hpo.service.time_left import seconds_left
from hpo.spec import StudySpec
from hpo.spec.configurations import count_configurations
from hpo.spec.finalists import FinalistsConfig
from hpo.spec.optimizer import NAME_PATTERN
from hpo.spec.study import MOST_HOURS
from hpo.store import answers, data_sets, earlier, edits, finalists, notes, studies
from hpo.store.data_sets import DataSet
from hpo.store.studies import StudyRow
from hpo.trial import ParamValue, StudyState, TrialState

from ..auth.scopes import BEARER, Admin, Reader
from ..names import StudyName
from ..problems import responses
from ..state import State
from .spec_body import Spec, openapi_body

router = APIRouter(prefix="/v1/studies", tags=["studies"], dependencies=[Depends(BEARER)])


class BestValue(BaseModel):
    """What the best configuration so far has shown of the first objective, and the trial that stands for it."""

    number: int
    metric: str
    value: float
    """Mean of the last values that its trials reported."""
    evidence: Evidence


class GpuHours(BaseModel):
    """What the GPU hours of a study went into; the three add up to the hours spent."""

    trained: float
    """Finished epochs, evaluation included, of trials that have not failed."""
    failed: float
    """Everything that trials took which failed."""
    startup: float
    """The rest: start-up, and epochs that were interrupted."""


class ImportanceRow(BaseModel):
    """How much one parameter matters for one objective."""

    parameter: str
    share: float
    """Total-order Sobol index, as a share of the sum over all parameters."""
    low: float | None = None
    high: float | None = None
    """The share has a probability of 90 % to lie between these, by the model; null where that was not computed."""
    trend: Trend | None
    """How the objective changes with a number; null for categories, and where the model sees no difference."""
    at: ParamValue | None
    """Where it is highest or lowest, if the trend says so."""


class ImportanceSummary(BaseModel):
    """What matters in a study, by the models of the optimizer."""

    outcomes: int
    """How many trials had an outcome when it was computed."""
    message: str
    """What matters most, as a sentence; where the model explains next to nothing, it says so."""
    explained: dict[str, float | None] = {}
    """By objective: the share of its variance that the model explains of trials that it has not seen (R², below 0 where
    it misleads); null where it is the same in all trials. Empty where that was not computed."""
    importances: dict[str, list[ImportanceRow]]
    """By objective, the most important parameter first."""


class StudyProgress(BaseModel):
    """How far a study is, of what it may use."""

    trials_over: int
    """Trials that have ended, trainings of finalists included."""
    trials: int | None
    """The limit, with these trainings; null without one."""
    gpu_hours: float | None
    """The limit of GPU hours; null without one."""
    seconds_left: float | None
    """When the budget is used up at the pace so far; null where that is not known."""


class StudySummary(BaseModel):
    """A study as it appears in a list."""

    name: str
    state: StudyState
    state_reason: str | None
    degraded: str | None
    """What the study lacks at the moment, such as an optimizer, as a sentence; null if nothing."""
    created_at: datetime
    finished_at: datetime | None
    gpu_hours_spent: float
    """Hours for which devices were in use: of every attempt of every trial, from its claim to its end."""
    gpu_hours_by_kind: GpuHours
    gpu_hours_saved: float
    """GPU hours of the epochs that early stopping has spared, at what the epochs of each trial have cost."""
    trial_counts: dict[TrialState, int]
    """How many trials are in each state; states without any are left out."""
    guesses_waiting: int
    """Configurations that people asked for and that have not become trials yet."""
    finalists: FinalistsConfig | None
    """How the best configurations are trained again after the search; null if they are not."""
    search_ended_at: datetime | None
    """When that began; from then on nothing new is searched."""
    imported: int
    """Results from elsewhere, beside the trials that `trial_counts` counts."""
    replicates: int
    """How many trials train the configuration of an earlier one again."""
    progress: StudyProgress
    best: BestValue | None


class DeletedStudy(BaseModel):
    """A study that was deleted, and what became of its files."""

    name: str
    uuid: UUID
    """Names the folder of its checkpoints, on every machine."""
    hosts: list[str]
    """The machines on which its trials ran."""
    files_removed: int
    """From the folder of checkpoints that this service reaches."""
    bytes_removed: int
    left: list[str]
    """A sentence for each file or folder that could not be removed."""


class FinalistsRequest(FinalistsConfig):
    """Which finalists are wanted."""

    end_search: StrictBool = False
    """Begin now: what searches and still runs ends with what it has measured, nothing new is searched."""


def _one_line_end(text: Any) -> Any:
    """A form of a browser writes a line end as two characters."""
    return text.replace("\r\n", "\n") if isinstance(text, str) else text


class BudgetChanges(Message):
    """Limits of a study that change; what is not named stays, null takes a limit away."""

    trials: Annotated[StrictInt, Field(ge=1, le=100_000)] | None = None
    gpu_hours: Annotated[float, Field(gt=0, le=MOST_HOURS, allow_inf_nan=False)] | None = None
    wall_hours: Annotated[float, Field(gt=0, le=MOST_HOURS, allow_inf_nan=False)] | None = None
    target: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    max_failed: Annotated[StrictInt, Field(ge=1)] | None = None

    @property
    def named(self) -> dict[str, Any]:
        """The limits that were named, as a budget has them."""
        return {
            name: {} if value is None and name == "target" else value
            for name, value in self.model_dump(exclude_unset=True).items()
        }


NewName = Annotated[str, Field(pattern=NAME_PATTERN)]


class Reopening(Message):
    """What of a study changes when it goes on."""

    budget: BudgetChanges = BudgetChanges()
    model_config = ConfigDict(json_schema_extra={"examples": [{"budget": {"trials": 80}}]})


class StudyChanges(Message):
    """What of a study changes."""

    budget: BudgetChanges = BudgetChanges()
    early_stopping: dict[str, Any] | None = None
    """Another stopping rule, as in a spec."""
    space: dict[Annotated[str, Field(max_length=200)], dict[str, Any]] | None = None
    """Of parameters, the fields that change: wider ranges, more choices."""
    name: NewName | None = None
    """Another name for it."""
    note: Annotated[str, BeforeValidator(_one_line_end), Field(max_length=notes.MOST_CHARACTERS)] | None = None
    """What a person notes about the study; an empty text removes it. Left out, the note stays."""
    revision: Annotated[StrictInt, Field(ge=1)] | None = None
    """That of the study that the changes were made from: refused where somebody has changed it since. Left out, the
    changes are made to whatever it is now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"budget": {"trials": 80}}]})

    @property
    def of_spec(self) -> dict[str, Any]:
        """What changes of the spec."""
        found = {"budget": self.budget.named, "early_stopping": self.early_stopping, "space": self.space}
        return {name: value for name, value in found.items() if value}


class StudyDetail(StudySummary):
    """A study with its spec."""

    id: int
    note: str | None
    """What a person has noted about it."""
    revision: int
    """Grows with every change of its spec."""
    spec: StudySpec
    configurations: int | None
    """How many configurations the space has; null where it has continuous parameters, or too many to count."""
    importance: ImportanceSummary | None
    """What matters most; null before the optimizer `ax` has computed it."""
    earlier_trials: dict[str, int]
    """How many trials were taken over from each study that this one starts from."""
    missing_data: str | None = None
    """That the data set of a study that was just created may be missing, as a sentence."""
    data_changed: str | None = None
    """That trials were trained on different versions of the data set, as a sentence; null where all had the same."""
    few_clips: str | None
    """What the validation clips cannot show, as a sentence; null where they are enough, or not known yet."""
    data_set: DataSet | None
    """What the trial that ended last has found in the data set; null before one has said it."""


@router.post(
    "",
    status_code=201,
    responses=responses(409, 413, 415),
    operation_id="create_study",
    openapi_extra=openapi_body(),
)
def create_study(state: State, who: Admin, body: Spec, response: Response) -> StudyDetail:
    """Create a study from its spec, sent as JSON or YAML. A spec with an error stores nothing.

    The reply shows the spec as it is stored, with the settings that are recommended where it names none.
    """
    spec = creation.completed(body.parse(state.fragments), state.check_spec)
    found = notices.seen(spec, state.count_clips, seconds=creation.COUNTING_SECONDS)
    with state.database.transaction() as connection:
        study = creation.store(connection, spec, found, actor=who.name)
        response.headers["Location"] = f"/v1/studies/{study.name}"
        missing = notices.missing_data(connection, spec, found)
        return _detail(connection, study).model_copy(update={"missing_data": missing})


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


@router.patch("/{name}", responses=responses(404, 409), operation_id="edit_study")
def edit_study(state: State, who: Admin, name: StudyName, changes: StudyChanges) -> StudyDetail:
    """Change the budget, the stopping rule or the space of a study that has not ended, or note and name of any."""
    with state.database.transaction() as connection:
        if changes.of_spec or (changes.note is None and changes.name is None):
            edits.change(connection, name, changes.of_spec, actor=who.name, revision=changes.revision)
        if changes.note is not None:
            notes.set_note(connection, name, changes.note, actor=who.name)
        if changes.name is not None:
            name = edits.rename(connection, name, changes.name, actor=who.name).name
    end_finished_studies(state.database)
    with state.database.transaction() as connection:
        return _detail(connection, studies.get(connection, name))


@router.post("/{name}/reopen", responses=responses(404, 409), operation_id="reopen_study")
def reopen_study(state: State, who: Admin, name: StudyName, changes: Reopening) -> StudyDetail:
    """Let a study that has ended, or was stopped, search on; its budget needs room, which `changes` may give it."""
    with state.database.transaction() as connection:
        return _detail(connection, reopening.reopen(connection, name, changes.budget.named, actor=who.name))


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


@router.post("/{name}/finalists", responses=responses(404, 409), operation_id="train_finalists")
def train_finalists(state: State, who: Admin, name: StudyName, request: FinalistsRequest) -> StudyDetail:
    """Have the best configurations trained again with fresh seeds, until one of them is clear.

    It happens when the search of the study ends, and at once with `end_search`. A study that has ended becomes active
    again for it.
    """
    wanted = FinalistsConfig(**request.model_dump(exclude={"end_search"}))
    with state.database.transaction() as connection:
        finalists.ask_for(connection, name, wanted, end_search=request.end_search, actor=who.name)
    end_finished_studies(state.database)
    with state.database.transaction() as connection:
        return _detail(connection, studies.get(connection, name))


@router.delete("/{name}", responses=responses(404, 409), operation_id="delete_study")
def delete_study(state: State, who: Admin, name: StudyName) -> DeletedStudy:
    """Delete a study with its trials, their curves and the checkpoint files that this machine reaches.

    Files on other machines go when a worker starts there, or with `hpo gc` there.
    """
    with state.database.transaction() as connection:
        gone = studies.delete(connection, name, actor=who.name)
    # After the commit: a study that could not be deleted keeps its files.
    removed = RemovedFiles() if state.remove_files is None else state.remove_files(gone.uuid)
    earlier = [f"{folder} stays: a release up to 0.2.0 wrote it; remove it by hand" for folder in gone.earlier_folders]
    return DeletedStudy(
        name=name,
        uuid=gone.uuid,
        hosts=list(gone.hosts),
        files_removed=removed.files,
        bytes_removed=removed.bytes,
        left=[*removed.left, *earlier],
    )


def _move(state: State, name: str, target: StudyState, *, actor: str) -> StudyDetail:
    with state.database.transaction() as connection:
        return _detail(connection, studies.set_state(connection, name, target, actor=actor))


def _detail(connection: Connection, study: StudyRow) -> StudyDetail:
    return StudyDetail(
        **_fields(connection, study),
        id=study.id,
        note=study.note,
        revision=study.revision,
        spec=study.spec,
        configurations=count_configurations(study.spec),
        importance=_importance(connection, study),
        earlier_trials=earlier.counts(connection, study.id, study.spec),
        data_changed=data_versions.data_changed(connection, study.id),
        few_clips=notices.few_clips_of(connection, study.id),
        data_set=data_sets.seen(connection, study.id),
    )


def _importance(connection: Connection, study: StudyRow) -> ImportanceSummary | None:
    found = importance.last(connection, study.id)
    return None if found is None else ImportanceSummary.model_validate(found)


def _fields(connection: Connection, study: StudyRow) -> dict[str, Any]:
    return {
        "name": study.name,
        "state": study.state,
        "state_reason": study.state_reason,
        "degraded": study.degraded,
        "created_at": study.created_at,
        "finished_at": study.finished_at,
        "gpu_hours_spent": study.gpu_seconds_spent / 3600,
        "gpu_hours_by_kind": GpuHours(
            trained=study.gpu_seconds_trained / 3600,
            failed=study.gpu_seconds_failed / 3600,
            startup=study.gpu_seconds_of_startup / 3600,
        ),
        "gpu_hours_saved": study.gpu_seconds_saved / 3600,
        "trial_counts": study.counts,
        "guesses_waiting": len(study.waiting_guesses),
        "finalists": study.finalists,
        "search_ended_at": study.search_ended_at,
        "imported": study.imported,
        "replicates": study.replicates,
        "progress": _progress(study),
        "best": _best(connection, study),
    }


def _progress(study: StudyRow) -> StudyProgress:
    trials, seconds = study.spec.budget.trials, study.gpu_seconds_limit
    return StudyProgress(
        trials_over=study.trials_over,
        trials=None if trials is None else trials + study.replicates,
        gpu_hours=None if seconds is None else seconds / 3600,
        seconds_left=seconds_left(study),
    )


def _best(connection: Connection, study: StudyRow) -> BestValue | None:
    found = answers.read(connection, study)
    if found is None:
        return None
    value, evidence = found.winner.first.observed, evidence_of_winner(found)
    return BestValue(number=found.winner.chosen, metric=found.metric, value=value, evidence=evidence)
