"""What the routes share: the database, the settings, and the limiters that live as long as the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Annotated, Final, cast
from uuid import UUID

from fastapi import Depends, Request

from hpo.protocol import RemovedFiles
from hpo.service.creation import SpecCheck
from hpo.service.fallback import Fallback
from hpo.service.notices import ClipCount
from hpo.spec import Fragments, StudySpec
from hpo.store import Database

from .config import ApiConfig
from .lane import Lane
from .rate import RateLimiter
from .timings import Timings
from .waiting import Waiters

SpecPreview = Callable[[StudySpec], Iterable[str]]
"""Returns sentences about what a study would be."""
MOST_PREVIEWS: Final = 2
"""Data sets that are read for previews at a time."""
FileRemoval = Callable[[UUID], RemovedFiles]
"""Removes the files of a study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiState:
    """One per application."""

    database: Database
    lane: Lane
    """For the calls of workers about trials."""
    config: ApiConfig
    fallback: Fallback
    logins: RateLimiter
    waiters: Waiters = field(default_factory=Waiters)
    timings: Timings = field(default_factory=Timings)
    check_spec: SpecCheck | None = None
    """Adds what models demand before a study is stored; raises SpecError for what no worker could build."""
    fragments: Fragments | None = None
    """Knows what `space.include` of a spec stands for."""
    remove_files: FileRemoval | None = None
    """Removes the checkpoint files of a deleted study, those that this machine reaches."""
    list_models: Callable[[], Sequence[str]] | None = None
    """Returns the names of the zoo."""
    preview: SpecPreview | None = None
    """Says what a study would be, before it is stored."""
    previews: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(MOST_PREVIEWS))
    """Held by each preview until it has ended."""
    count_clips: ClipCount | None = None
    """Counts the clips that the trials of a study validate on, where this machine can read the data set."""


async def _state(request: Request) -> ApiState:
    return cast(ApiState, request.app.state.hpo)


State = Annotated[ApiState, Depends(_state)]
