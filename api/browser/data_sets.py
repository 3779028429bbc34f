"""The page of the data sets."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from hpo.activity import FORGOTTEN_SECONDS
from hpo.store import data_sets, studies, waiting

from ..auth.forms import Looking
from ..pages import paths
from ..pages.data_sets import DataSetMaterial, data_set_of, data_sets_page
from ..pages.home import latest_of
from ..state import State

router = APIRouter()


@router.get(paths.DATA_SETS, include_in_schema=False)
def show_data_sets(state: State, viewer: Looking) -> HTMLResponse:
    """Show the data sets of the latest studies, what is wrong with them, and who lacks them."""
    with state.database.transaction() as connection:
        found = [study for study in latest_of(studies.list_all(connection)) if data_set_of(study) is not None]
        ids = [study.id for study in found]
        material = DataSetMaterial(
            studies=found,
            seen=data_sets.seen_by_study(connection, ids),
            versions=data_sets.versions(connection, ids),
            classes=data_sets.classes_by_study(connection, ids),
            trained_by=data_sets.trained_by(connection, ids, seconds=FORGOTTEN_SECONDS),
            missing=waiting.missing_files(connection),
        )
    return data_sets_page(material, viewer=viewer)
