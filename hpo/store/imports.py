"""Taking over results that were measured elsewhere, as trials of a study that no worker has had."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from ..errors import ConflictError, SpecError, SpecIssue
from ..protocol import ImportedTrial, ImportRequest
from ..spec import StudySpec
from ..trial import IMPORTED
from . import events
from .statements import execute
from .study_row import StudyRow, get
from .study_state import lock

_MOST_ISSUES: Final = 20


def take_over(connection: Connection, name: str, request: ImportRequest, *, actor: str) -> list[int]:
    """Add results from elsewhere to a study that has not ended, and return the numbers that they got.

    Those that it has already are left out.

    Raises:
        NotFoundError: there is no such study.
        ConflictError: it has ended.
        SpecError: a result is not one of the study, or two have one key; names the first ones.
    """
    lock(connection, name)
    found = get(connection, name)
    _require_open(found)
    if issues := list(_issues(found.spec, request.trials)):
        raise SpecError(issues[:_MOST_ISSUES])
    given = [trial.model_dump(mode="json") for trial in request.trials]
    rows = execute(connection, "take_over", study_id=found.id, generator=IMPORTED, trials=json.dumps(given)).all()
    if rows:
        sources = Counter(trial.origin.source for trial in request.trials)
        detail = {"trials": len(rows), "known": len(given) - len(rows), "sources": list(sources)[:_MOST_ISSUES]}
        events.append(connection, found.id, None, "study.imported", actor, detail)
    return [int(row.number) for row in rows]


def _require_open(found: StudyRow) -> None:
    if found.finished_at is not None or found.budget_reached_at is not None or found.state not in ("active", "paused"):
        again = f"`hpo study reopen {found.name}`"
        raise ConflictError(f"the study {found.name!r} has ended; reopen it ({again}), or import into a new study")


def _issues(spec: StudySpec, trials: Iterable[ImportedTrial]) -> Iterable[SpecIssue]:
    """Yield what keeps results from being ones of the study."""
    needed = {objective.metric for objective in spec.objectives} | {limit.metric for limit in spec.constraints}
    keys: set[str] = set()
    for place, trial in enumerate(trials):
        where = f"trials[{place}]"
        if trial.origin.key in keys:
            yield SpecIssue(path=f"{where}.origin.key", message="another trial of this call has the same key")
        keys.add(trial.origin.key)
        try:
            spec.check_params(trial.params)
        except (ValueError, TypeError) as error:
            yield SpecIssue(path=f"{where}.params", message=str(error))
        if trial.state == "completed" and (missing := sorted(needed - trial.metrics.keys())):
            yield SpecIssue(path=f"{where}.metrics", message=f"a completed trial needs {', '.join(missing)}")
        if trial.state == "failed" and trial.metrics:
            yield SpecIssue(path=f"{where}.metrics", message="a failed trial has none")
        if any(step > spec.task.epochs for step in trial.curve):
            message = f"a trial of the study has {spec.task.epochs} epochs, and no more"
            yield SpecIssue(path=f"{where}.curve", message=message)
