"""The page that makes a study from a spec: checked, stored, or begun from the spec of another study."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import Annotated, Final

import yaml
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection, select

from hpo.errors import HpoError, SpecError, SpecIssue, StudyExistsError
from hpo.service import creation, notices
from hpo.spec import StudySpec, dump_spec, stored_spec
from hpo.spec.optimizer import LONGEST_NAME
from hpo.store import studies, tables

from ..auth.forms import GuardedSpecForm, Looking
from ..auth.scopes import Admin
from ..names import known_form
from ..pages import paths
from ..pages.new import new_page
from ..state import ApiState, State

log = logging.getLogger(__name__)
router = APIRouter(prefix=paths.NEW, include_in_schema=False)

Source = Annotated[str | None, Query(alias="from", max_length=200, description="The study that is cloned.")]
PREVIEW_SECONDS: Final = 20.0
"""A data set on a file system that does not answer keeps nobody waiting for longer."""


@router.get("")
def show_form(state: State, viewer: Looking, _: Admin, source: Source = None) -> HTMLResponse:
    """Show the form, with an example or with the spec of another study under a name that is free."""
    if source is None:
        return new_page(viewer=viewer)
    with state.database.transaction() as connection:
        spec = studies.get(connection, known_form(source)).spec
        clone = spec.model_copy(update={"name": _free_name(connection, source)})
    return new_page(viewer=viewer, text=_written(clone), source=source)


@router.post("", response_model=None)
def use_form(
    state: State,
    viewer: Looking,
    who: Admin,
    form: GuardedSpecForm,
    source: Source = None,
) -> HTMLResponse | RedirectResponse:
    """Check the spec, or create the study and show it; a spec with an error comes back with what is wrong."""
    text = form.get("spec", "").replace("\r\n", "\n")
    try:
        spec = creation.completed(creation.read(text, state.fragments), state.check_spec)
        if "check" in form:
            lines = _preview(state, spec)
            return new_page(viewer=viewer, text=text, source=source, lines=lines)
        found = notices.seen(spec, state.count_clips, seconds=creation.COUNTING_SECONDS)
        with state.database.transaction() as connection:
            creation.store(connection, spec, found, actor=who.name)
    except SpecError as error:
        return new_page(viewer=viewer, text=text, source=source, issues=error.issues, status=422)
    except StudyExistsError as error:
        issue = SpecIssue(path="name", message=str(error))
        return new_page(viewer=viewer, text=text, source=source, issues=[issue], status=409)
    return RedirectResponse(paths.of_study(spec.name), status_code=303)


def _written(spec: StudySpec) -> str:
    """Return a spec as YAML: without what it would get anyway, unless a new study would get something else."""
    short = spec.model_dump(mode="json", exclude_defaults=True)
    same = stored_spec(short).of_new_study() == spec.of_new_study()
    return yaml.safe_dump(short if same else dump_spec(spec), sort_keys=False, allow_unicode=True)


def _free_name(connection: Connection, name: str) -> str:
    taken = set(connection.execute(select(tables.study.c.name)).scalars())
    candidates = (f"{name[: LONGEST_NAME - 1 - len(str(place))]}-{place}" for place in range(2, len(taken) + 3))
    return next(candidate for candidate in candidates if candidate not in taken)


def _preview(state: ApiState, spec: StudySpec) -> list[str]:
    """Return what a study would be, as sentences, as far as that is known soon."""
    said = [f"{spec.name}: the spec is right; nothing was stored"]
    preview = state.preview
    if preview is None:
        return said
    late = [*said, f"what it would be was not known within {PREVIEW_SECONDS:.0f} s"]
    until = time.monotonic() + PREVIEW_SECONDS
    found: SimpleQueue[list[str]] = SimpleQueue()

    def look() -> None:
        try:
            found.put(list(preview(spec)))
        except HpoError as error:
            found.put([*said, str(error)])
        except Exception:  # the boundary of the thread: nobody else would hear of it
            log.exception("what the study %s would be cannot be said", spec.name)
            found.put([*said, "what it would be cannot be said; the log of the service says why"])
        finally:
            state.previews.release()

    # One that hangs is never ended: it keeps its place, so that no more than these are left behind.
    if not state.previews.acquire(timeout=PREVIEW_SECONDS):
        return late
    threading.Thread(target=look, daemon=True).start()
    try:
        return found.get(timeout=max(until - time.monotonic(), 0.0))
    except Empty:
        return late
