"""The best trial of a study, and its export."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from sqlalchemy import Connection

from hpo.errors import NotFoundError
from hpo.results.export import Export, ExportFormat, build_export, dump_export
from hpo.results.outcome import final_metrics
from hpo.store import studies, trials
from hpo.store.studies import StudyRow
from hpo.trial import TrialRecord

from ..auth.scopes import BEARER, Reader
from ..problems import responses
from ..state import State
from .names import StudyName
from .trials import TrialDetail

router = APIRouter(prefix="/v1/studies/{name}", tags=["results"], dependencies=[Depends(BEARER)])

MEDIA_TYPES = {"yaml": "application/yaml", "json": "application/json"}


class BestTrial(TrialDetail):
    """The best trial by the first objective, of those that keep every constraint, with its curve."""

    study: str
    metric: str
    direction: Literal["maximize", "minimize"]
    value: float

    @classmethod
    def in_study(cls, study: StudyRow, record: TrialRecord) -> Self:
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
        )


@router.get("/best", responses=responses(404), operation_id="get_best_trial")
def get_best_trial(state: State, _: Reader, name: StudyName) -> BestTrial:
    """Show the best trial so far. An early-stopped trial counts only while none has completed."""
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
        return BestTrial.in_study(study, _best(connection, study))


@router.get(
    "/export",
    response_class=Response,
    responses={
        **responses(404, 409),
        200: {
            "description": "The document, which `hpo train` and `hpo evaluate` read.",
            "content": {
                "application/yaml": {"schema": {"type": "string"}},
                "application/json": {"schema": Export.model_json_schema(ref_template="#/components/schemas/{model}")},
            },
        },
    },
    operation_id="export_trial",
)
def export_trial(
    state: State,
    _: Reader,
    name: StudyName,
    trial: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="Number of the trial; the best one, if none is given.")
    ] = None,
    form: Annotated[ExportFormat, Query(alias="format")] = "yaml",
) -> Response:
    """Return everything that trains a trial again: configuration, task, seed, data set version, environment."""
    with state.database.transaction() as connection:
        study = studies.get(connection, name)
        record = _best(connection, study) if trial is None else trials.get(connection, study.id, trial)
        ran = trials.environment_of(connection, record.id)
    export = build_export(
        study=study.name,
        spec=study.spec,
        trial=record,
        dataset_version=ran.dataset_version,
        environment=ran.environment,
        checkpoint=ran.checkpoint,
    )
    file = f'attachment; filename="{study.name}.{form}"'
    return Response(dump_export(export, form=form), media_type=MEDIA_TYPES[form], headers={"Content-Disposition": file})


def _best(connection: Connection, study: StudyRow) -> TrialRecord:
    record = trials.best(connection, study)
    if record is None:
        feasible = " within the constraints" if study.spec.constraints else ""
        raise NotFoundError(
            f"no trial of study {study.name!r} has completed{feasible} yet; `hpo trials {study.name}` shows where it is"
        )
    return record
