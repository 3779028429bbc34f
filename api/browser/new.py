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
from ..pages.data_sets import data_set_of
from ..pages.new import EXAMPLES, Kind, Known, Verdict, new_page, with_fields
from ..state import ApiState, State

log = logging.getLogger(__name__)
router = APIRouter(prefix=paths.NEW, include_in_schema=False)

Source = Annotated[str | None, Query(alias="from", max_length=200, description="The study that is cloned.")]
PREVIEW_SECONDS: Final = 20.0
"""A data set on a file system that does not answer keeps nobody waiting for longer."""


@router.get("")
def show_form(state: State, viewer: Looking, _: Admin, source: Source = None, kind: Kind = "video") -> HTMLResponse:
    """Show the form, with an example of a kind or with the spec of another study under a name that is free."""
    with state.database.transaction() as connection:
        known = _known(state, connection)
        if source is None:
            return new_page(EXAMPLES[kind], viewer=viewer, known=known)
        spec = studies.get(connection, known_form(source)).spec
        clone = spec.model_copy(update={"name": _free_name(connection, source)})
    return new_page(_written(clone), viewer=viewer, known=known, source=source)


@router.post("", response_model=None)
def use_form(
    state: State,
    viewer: Looking,
    who: Admin,
    form: GuardedSpecForm,
    source: Source = None,
) -> HTMLResponse | RedirectResponse:
    """Create the study and show it, check its spec, or bring its fields and its text together (`apply`).

    What was changed in a field is written into the text first. A spec with an error comes back with what is wrong.
    """
    text = form.get("spec", "").replace("\r\n", "\n")
    with state.database.transaction() as connection:
        known = _known(state, connection)
    try:
        text = with_fields(text, form, known)
        spec = creation.completed(creation.read(text, state.fragments), state.check_spec)
        if "check" in form or "apply" in form:
            with state.database.transaction() as connection:
                studies.require_free(connection, spec.name)
            verdict = Verdict(lines=_preview(state, spec) if "check" in form else ())
            return new_page(text, viewer=viewer, known=known, source=source, verdict=verdict)
        found = notices.seen(spec, state.count_clips, seconds=creation.COUNTING_SECONDS)
        with state.database.transaction() as connection:
            creation.store(connection, spec, found, actor=who.name)
    except (SpecError, StudyExistsError) as error:
        is_taken = isinstance(error, StudyExistsError)
        issues = [SpecIssue(path="name", message=str(error))] if isinstance(error, StudyExistsError) else error.issues
        # An answer to somebody who still writes is no refusal.
        status = 200 if "apply" in form else 409 if is_taken else 422
        verdict = Verdict(issues=issues, is_refused="apply" not in form, status=status)
        return new_page(text, viewer=viewer, known=known, source=source, verdict=verdict)
    return RedirectResponse(paths.of_study(spec.name), status_code=303)


def _known(state: ApiState, connection: Connection) -> Known:
    return Known(folders=_folders(connection), models=() if state.list_models is None else state.list_models())


def _folders(connection: Connection) -> list[str]:
    """Return the data sets that studies name, those of the latest ones first."""
    latest = sorted(studies.list_all(connection), key=lambda study: study.created_at, reverse=True)
    return list(dict.fromkeys(str(found.root) for study in latest if (found := data_set_of(study)) is not None))


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
