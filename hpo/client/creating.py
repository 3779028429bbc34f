"""Creating a study, also where the answer of the service is lost."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import NotFoundError, StudyExistsError
from .calls import create_study, study
from .problems import UnreachableError
from .replies import StudyDetail
from .steps import Steps


def create_new_study(spec: Mapping[str, Any]) -> Steps[StudyDetail]:
    """Create a study whose name was free a moment ago, and return it, also where the first answer is lost.

    Raises:
        SpecError: names every wrong field.
    """
    name = str(spec["name"])
    try:
        return (yield from create_study(spec))
    except UnreachableError:
        with suppress(NotFoundError):
            return (yield from study(name))
    try:
        return (yield from create_study(spec))
    except StudyExistsError:  # the first request was carried out after all
        return (yield from study(name))
