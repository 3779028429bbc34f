"""The answer of a study: its best configuration and how sure that is, all others beside it, and exports."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import BaseModel
from sqlalchemy import Connection

from hpo.answer import Answer, Candidate, Estimate
from hpo.answer.evidence import evidence_of, evidence_of_winner
from hpo.errors import NotFoundError
from hpo.results.evidence import Evidence
from hpo.results.export import Export, ExportFormat, build_export, dump_export
from hpo.results.outcome import final_metrics
from hpo.store import answers, checkpoints, studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import ParamValue, TrialRecord

from ..auth.scopes import BEARER, Reader
from ..names import StudyName
from ..problems import responses
from ..state import State
from .trials import TrialDetail

router = APIRouter(prefix="/v1/studies/{name}", tags=["results"], dependencies=[Depends(BEARER)])

MEDIA_TYPES = {"yaml": "application/yaml", "json": "application/json"}


class BestTrial(TrialDetail):
    """The trial that stands for the best configuration of those that keep every constraint, with its curve."""

    study: str
    metric: str
    direction: Literal["maximize", "minimize"]
    value: float
    """What the trial reported last."""
    evidence: Evidence

    @classmethod
    def in_study(cls, study: StudyRow, record: TrialRecord, evidence: Evidence) -> Self:
        """Take over what the store knows."""
        objective = study.spec.objectives[0]
        # A cancelled trial that failed has no final metrics: the last ones that it measured stand for them.
        metrics = dict(final_metrics(record))
        return cls(
            **(TrialDetail.of(record).model_dump() | {"metrics": metrics}),
            study=study.name,
            metric=objective.metric,
            direction=objective.direction,
            value=metrics[objective.metric],
            evidence=evidence,
        )


class ObjectiveEstimate(BaseModel):
    """What is believed of one objective of a configuration."""

    observed: float
    """Mean of the last values that its trials reported."""
    believed: float
    """Where its trainings end, by all epochs of all its trials."""
    sd: float
    """Standard deviation of `believed` around the value on new data: epochs, seeds and validation clips."""
    expected: float
    """Expected on new data, with the effect of selection taken off."""
    expected_sd: float

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Take over an estimate."""
        return cls(**{name: getattr(estimate, name) for name in cls.model_fields})


class Configuration(BaseModel):
    """A configuration with a result that keeps the constraints."""

    params: dict[str, ParamValue]
    trials: list[int]
    """Its trials with a result."""
    chosen: int
    """The trial among them that is exported: the one that is believed to have ended best."""
    completed: int
    """How many of the trials ran to their end; the others were stopped."""
    estimates: dict[str, ObjectiveEstimate]
    """By objective."""
    probability_best: float
    """Of being the best on new data; with several objectives, in the first."""

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        """Take over a candidate."""
        return cls(
            params=dict(candidate.params),
            trials=list(candidate.trials),
            chosen=candidate.chosen,
            completed=candidate.completed,
            estimates={name: ObjectiveEstimate.of(found) for name, found in candidate.estimates.items()},
            probability_best=candidate.probability,
        )


class StudyAnswer(BaseModel):
    """What a study has found so far."""

    metric: str
    """The first objective."""
    configurations: list[Configuration]
    """The best first."""
    front: list[int]
    """Trials of the configurations that no other is expected to dominate; with one objective that of the best alone."""
    highest_trial: int
    """The trial with the best observed value: the luckiest."""
    highest_observed: float
    clips: int | None
    """Number of validation clips behind a value; null if it is unknown, or the metric is not a share of clips."""
    seed_sd: float
    """Believed standard deviation between trainings of one configuration."""
    is_clear: bool
    """Whether the first configuration is so probably the best that there is no need to look further."""

    @classmethod
    def of(cls, found: Answer) -> Self:
        """Take over an answer."""
        return cls(
            metric=found.metric,
            configurations=[Configuration.of(candidate) for candidate in found.candidates],
            front=[candidate.chosen for candidate in found.front],
            highest_trial=found.luckiest,
            highest_observed=found.luckiest_value,
            clips=found.clips,
            seed_sd=found.seed_sd,
            is_clear=found.is_clear,
        )


@router.get("/best", responses=responses(404), operation_id="get_best_trial")
def get_best_trial(state: State, _: Reader, name: StudyName) -> BestTrial:
    """Show the best trial so far, by what is believed of all; a stopped trial counts with its believed end."""
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
        found = _answer(connection, study)
        record = trials.get(connection, study.id, found.winner.chosen)
    return BestTrial.in_study(study, record, evidence_of_winner(found))


@router.get("/answer", responses=responses(404), operation_id="get_answer")
def get_answer(state: State, _: Reader, name: StudyName) -> StudyAnswer:
    """Show what is believed of every configuration with a result, the best first."""
    with state.database.transaction() as connection:
        return StudyAnswer.of(_answer(connection, studies.get(connection, name)))


@router.get(
    "/export",
    response_class=Response,
    responses={
        **responses(404, 409),
        200: {
            "description": "The document, which `hpo train` and `hpo evaluate` read.",
            "content": {
                media_type: {"schema": Export.model_json_schema(ref_template="#/components/schemas/{model}")}
                for media_type in MEDIA_TYPES.values()
            },
        },
    },
    operation_id="export_trial",
)
def export_trial(
    state: State,
    who: Reader,
    name: StudyName,
    trial: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="Number of the trial; the best one, if none is given.")
    ] = None,
    form: Annotated[ExportFormat, Query(alias="format")] = "yaml",
) -> Response:
    """Return everything that trains a trial again: configuration, task, seed, data set version, environment.

    From now on no cleanup removes its last checkpoint. `checkpoint` is null where one has removed it before.
    """
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
        number = _answer(connection, study).winner.chosen if trial is None else trial
        record = trials.get(connection, study.id, number)
        found = answers.read(connection, study)
        ran = trials.environment_of(connection, record.id)
        is_there = checkpoints.note_export(connection, study.id, record.id, actor=who.name)
    export = build_export(
        study=study.name,
        spec=study.spec,
        trial=record,
        dataset_version=ran.dataset_version,
        environment=ran.environment,
        checkpoint=ran.checkpoint if is_there else None,
        evidence=None if found is None else evidence_of(found, record.number),
    )
    file = f'attachment; filename="{study.name}.{form}"'
    return Response(dump_export(export, form=form), media_type=MEDIA_TYPES[form], headers={"Content-Disposition": file})


def _answer(connection: Connection, study: StudyRow) -> Answer:
    found = answers.read(connection, study)
    if found is None:
        feasible = " within the constraints" if study.spec.constraints else ""
        raise NotFoundError(
            f"no trial of study {study.name!r} has completed{feasible} yet; `hpo trials {study.name}` shows where it is"
        )
    return found
