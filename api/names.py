"""What stands in a path: names of studies, numbers and ids of trials."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Depends, Path

from hpo.errors import NotFoundError
from hpo.spec.optimizer import NAME_PATTERN

_NAME: Final = re.compile(NAME_PATTERN + r"\Z")


def known_form(name: str) -> str:
    """Return a name that a study may have.

    Raises:
        NotFoundError: no study can be called so.
    """
    # What cannot be a name is not looked up: Postgres takes no NUL, and the answer is the same.
    if not _NAME.match(name):
        raise NotFoundError(f"there is no study {name[:100]!r}; names have letters, digits, '.', '_' and '-'")
    return name


async def _study_name(
    name: Annotated[str, Path(description="Name of the study.", examples=["ucf101-slowfast"])],
) -> str:
    return known_form(name)


StudyName = Annotated[str, Depends(_study_name)]
TrialNumber = Annotated[int, Path(ge=0, le=2**31 - 1, description="Number of the trial in its study, from 0.")]
TrialId = Annotated[int, Path(ge=0, le=2**63 - 1, description="Id of the trial, unique over all studies.")]
