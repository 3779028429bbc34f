"""What a study has taken over from earlier ones, copied when it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from ..answer.lessons import as_expected
from ..errors import NotFoundError, SpecError, SpecIssue
from ..results.warm_start import taken_over
from ..spec import StudySpec
from ..trial import EarlierTrial, TrialState
from . import events, trials
from .study_row import get
from .tables import earlier_trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one earlier study has to give."""

    study: str
    taken: Sequence[EarlierTrial]
    completed: int
    """Its completed trials, those included that do not fit."""


def find(connection: Connection, spec: StudySpec) -> list[Found]:
    """Look up the studies that `spec` starts from, and what they say about its space.

    Raises:
        SpecError: there is no study of one of the names, or two of them started from different files of one name.
    """
    found: list[Found] = []
    issues = []
    first: dict[str, tuple[str, str]] = {}
    for place, name in enumerate(spec.optimizer.warm_start):
        try:
            source = get(connection, name)
        except NotFoundError as error:
            issues.append(SpecIssue(path=f"optimizer.warm_start[{place}]", message=str(error)))
            continue
        taken = taken_over(spec, source.spec, as_expected(spec, source.spec, trials.records(connection, source.id)))
        for weights, digest in {file for trial in taken for file in trial.weights.items()}:
            study, known = first.setdefault(weights, (name, digest))
            if digest != known:
                message = (
                    f"its trials started from the weights {weights!r} with the SHA-256 {digest}, those of {study!r} "
                    f"from {known} under the same name: leave one of the two studies out"
                )
                issues.append(SpecIssue(path=f"optimizer.warm_start[{place}]", message=message))
        found.append(Found(study=name, taken=taken, completed=source.counts.get(TrialState.COMPLETED, 0)))
    if issues:
        raise SpecError(issues)
    return found


def keep(connection: Connection, study_id: int, found: Sequence[Found], *, actor: str) -> None:
    """Copy what was found to a new study."""
    taken = [trial for source in found for trial in source.taken]
    rows = [
        {
            "study_id": study_id,
            "place": place,
            "source": trial.study,
            "params": dict(trial.params),
            "metrics": dict(trial.metrics),
            "weights": dict(trial.weights) or None,
        }
        for place, trial in enumerate(taken)
    ]
    if rows:
        connection.execute(insert(earlier_trial), rows)
    for source in found:
        detail = {
            "study": source.study,
            "taken": len(source.taken),
            "left_out": max(source.completed - len(source.taken), 0),
        }
        events.append(connection, study_id, None, "study.warm_started", actor, detail)


def read(connection: Connection, study_id: int) -> list[EarlierTrial]:
    """Read what a study has taken over, in its order."""
    query = select(earlier_trial).where(earlier_trial.c.study_id == study_id).order_by(earlier_trial.c.place)
    return [
        EarlierTrial(
            study=row["source"],
            params=row["params"],
            metrics={name: float(value) for name, value in row["metrics"].items()},
            weights=row["weights"] or {},
        )
        for row in connection.execute(query).mappings()
    ]


def counts(connection: Connection, study_id: int, spec: StudySpec) -> dict[str, int]:
    """Return how many trials were taken over from each study that `spec` starts from."""
    if not spec.optimizer.warm_start:
        return {}
    found = Counter(trial.study for trial in read(connection, study_id))
    return {name: found[name] for name in spec.optimizer.warm_start}
