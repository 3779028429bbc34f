"""Creating a study from a spec: what a new one gets, what is refused, and what is known of its data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from ..errors import SpecError, SpecIssue
from ..spec import Fragments, StudySpec, parse_spec
from ..spec.load import decode
from ..spec.paths import relative_paths
from ..store import studies
from ..store.studies import StudyRow
from . import notices
from .notices import DataSeen

MOST_SPEC_BYTES: Final = 256 * 1024
"""A spec that somebody sends, as UTF-8."""
COUNTING_SECONDS: Final = 5.0
"""A study is created without the number of its validation clips if the data set is not read by then."""

SpecCheck = Callable[[StudySpec], StudySpec]
"""Adds what models demand; raises SpecError for what no worker could build."""


def read(text: str, fragments: Fragments | None) -> StudySpec:
    """Return the spec in a text that a person wrote, as YAML or JSON.

    Raises:
        SpecError: names every wrong field, or the text is too long.
    """
    if (length := len(text.encode())) > MOST_SPEC_BYTES:
        message = f"a study spec has at most {MOST_SPEC_BYTES:,} bytes, this one has {length:,}"
        raise SpecError([SpecIssue(path="", message=message)])
    return parse_spec(decode(text, form="json" if text.lstrip().startswith("{") else "yaml", aliases=False), fragments)


def completed(spec: StudySpec, check: SpecCheck | None) -> StudySpec:
    """Return a spec as it is stored: with the settings of every new study, and checked against the models.

    Raises:
        SpecError: a path is relative, or no worker could build what the spec asks for.
    """
    new = spec.of_new_study()
    if issues := relative_paths(new):
        raise SpecError(issues)
    return new if check is None else check(new)


def store(connection: Connection, spec: StudySpec, seen: DataSeen, *, actor: str) -> StudyRow:
    """Store a study, and what this machine has seen of its data set.

    Raises:
        StudyExistsError: the name is taken.
    """
    study = studies.create(connection, spec, actor=actor)
    notices.note_clips(connection, study.id, spec, seen.clips)
    return study
