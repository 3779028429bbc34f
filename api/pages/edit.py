"""The page that changes a study: its name, budget, stopping rule, and wider ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml
from fastapi.responses import HTMLResponse

from hpo.errors import SpecIssue
from hpo.spec import dump_spec
from hpo.spec.editing import read_document
from hpo.store.studies import StudyRow

from . import paths, spec_fields
from .frame import Viewer, page
from .spec_fields import Group

_OF_ANY: Final = frozenset({"name"})
"""Fields that a study that has ended has, too."""
_OF_OPEN: Final = frozenset({"trials", "gpu_hours", "wall_hours", "stopping"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Changes that were not made."""

    spec: Mapping[str, Any]
    """What the study would be with them."""
    issues: Sequence[SpecIssue] = ()
    problem: str = ""
    """Why, where it is not about a field."""
    status: int = 422


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What of a study a person has changed."""

    name: str | None
    """Another name; None where it stays."""
    of_spec: Mapping[str, Any]
    """As `hpo.store.edits.change` takes it."""
    wanted: Mapping[str, Any]
    """The spec with all of it."""


def edit_page(study: StudyRow, *, viewer: Viewer, is_open: bool, refused: Refused | None = None) -> HTMLResponse:
    """Return the page; fields that were refused hold what was typed, and say what is wrong with it.

    `is_open` says whether the study still searches: of another one only the name changes.
    """
    now = _fields(dump_spec(study.spec), is_open=is_open)
    groups, elsewhere = now, list[SpecIssue]()
    if refused is not None:
        typed = _fields(refused.spec, is_open=is_open)
        groups, elsewhere = spec_fields.said_beside(typed, refused.issues)
    shown = {one.name: one.value for group in now for one in group.fields}
    return page(
        "edit.html",
        viewer=viewer,
        status=200 if refused is None else refused.status,
        study=study,
        address=paths.of_study(study.name),
        groups=groups,
        shown=shown,
        is_open=is_open,
        refused=refused,
        elsewhere=elsewhere,
        prefix=spec_fields.PREFIX,
        before=spec_fields.BEFORE,
    )


def changes_of(study: StudyRow, form: Mapping[str, str], *, is_open: bool) -> Changes:
    """Return what was changed in the posted form since it was shown.

    Raises:
        SpecError: a field has no place in the spec.
    """
    before = dump_spec(study.spec)
    groups = _fields(before, is_open=is_open)
    if (rule := form.get(f"{spec_fields.PREFIX}stopping")) is not None:  # whose options the form may have shown
        groups += _fields({**before, "early_stopping": {"name": rule}}, is_open=is_open)
    text = yaml.safe_dump(before, sort_keys=False, allow_unicode=True)
    wanted = read_document(spec_fields.written(text, groups, spec_fields.changed(groups, form)))
    of_spec: dict[str, Any] = {}
    if (budget := _differing(before["budget"], wanted.get("budget") or {})) is not None:
        of_spec["budget"] = budget
    stopping = wanted.get("early_stopping") or {"name": "none"}
    if stopping != before["early_stopping"]:
        of_spec["early_stopping"] = stopping
    space = {
        key: changed
        for key, parameter in wanted["space"].items()
        if (changed := _differing(before["space"][key], parameter)) is not None
    }
    if space:
        of_spec["space"] = space
    name = wanted.get("name", "")
    return Changes(name=None if name == before["name"] else str(name), of_spec=of_spec, wanted=wanted)


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields that differ, None for those that are gone; None where nothing does."""
    changed = {key: now.get(key) for key in {**before, **now} if now.get(key) != before.get(key)}
    return changed or None


def _fields(document: Mapping[str, Any], *, is_open: bool) -> tuple[Group, ...]:
    def is_shown(name: str) -> bool:
        return name in _OF_ANY or (is_open and (name in _OF_OPEN or name.startswith(("early_stopping.", "space."))))

    groups = (
        Group(title=group.title, fields=tuple(one for one in group.fields if is_shown(one.name)))
        for group in spec_fields.groups_of(document, with_model_choices=True)
    )
    return tuple(group for group in groups if group.fields)
