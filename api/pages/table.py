"""The page that takes over a table of results from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fastapi.responses import HTMLResponse

from hpo.protocol import MOST_IMPORTED
from hpo.store.studies import StudyRow

from . import paths
from .frame import Viewer, page

FIELDS: Final[Mapping[str, str]] = {
    "names": "Other names",
    "skip": "Columns to overlook",
    "given": "Values that the table lacks",
}
"""What a person says about the names of a table, by the name of the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a table, or would."""

    lines: tuple[str, ...] = ()
    is_done: bool = False
    """Whether it was imported."""
    problem: str = ""
    """Why not."""
    status: int = 200


def table_page(
    study: StudyRow, *, viewer: Viewer, form: Mapping[str, str] | None = None, outcome: Outcome | None = None
) -> HTMLResponse:
    """Return the page; what was typed stands in the form again."""
    metrics = [objective.metric for objective in study.spec.objectives]
    return page(
        "table.html",
        viewer=viewer,
        status=200 if outcome is None else outcome.status,
        study=study,
        address=paths.of_study(study.name),
        columns=[*study.spec.space, *metrics],
        labels=FIELDS,
        form=form or {},
        outcome=outcome,
        most=MOST_IMPORTED,
    )
