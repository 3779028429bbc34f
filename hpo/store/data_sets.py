"""What the trainings of studies have found in their data sets: versions, classes, which videos are used and which not.

The service never reads a data set: only workers reach them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection, text

_LOOKED_AT: Final = 20
# The latest trials only: one that a worker of an earlier release ran says nothing of its data set.
_LATEST: Final = text("""
SELECT study.id AS study_id, latest.version, latest.dataset, latest.finished_at
FROM unnest(CAST(:study_ids AS bigint[])) AS study (id)
CROSS JOIN LATERAL (
    SELECT dataset_version AS version, environment -> 'dataset' AS dataset, finished_at
    FROM (
        SELECT dataset_version, environment, finished_at FROM trial
        WHERE study_id = study.id AND finished_at IS NOT NULL
        ORDER BY finished_at DESC LIMIT :looked_at
    ) AS ended
    WHERE environment ? 'dataset'
    ORDER BY finished_at DESC LIMIT 1
) AS latest
""")
_VERSIONS: Final = text("""
SELECT study_id, dataset_version AS version, count(*) AS trials, max(started_at) AS last
FROM trial WHERE study_id = ANY(:study_ids) AND dataset_version IS NOT NULL
GROUP BY study_id, dataset_version ORDER BY last DESC
""")
_CLASSES: Final = text("""
SELECT study.id AS study_id, latest.counts
FROM unnest(CAST(:study_ids AS bigint[])) AS study (id)
CROSS JOIN LATERAL (
    SELECT confusion.counts - 'cells' AS counts FROM trial JOIN confusion ON confusion.trial_id = trial.id
    WHERE trial.study_id = study.id ORDER BY trial.number DESC LIMIT 1
) AS latest
""")
_TRAINED: Final = text("""
SELECT trial.study_id, attempt.worker, max(attempt.seen_at) AS last
FROM trial JOIN attempt ON attempt.trial_id = trial.id
WHERE trial.study_id = ANY(:study_ids) AND attempt.seen_at > clock_timestamp() - make_interval(secs => :seconds)
  AND EXISTS (SELECT FROM measurement WHERE measurement.trial_id = trial.id AND measurement.attempt = attempt.attempt)
GROUP BY trial.study_id, attempt.worker
""")


class LeftOut(BaseModel):
    """A video that is not used, and why."""

    path: str
    note: str


class DataSet(BaseModel):
    """What a training has found in the data set of a study."""

    model_config = ConfigDict(frozen=True)

    version: str | None
    """The digest of what it is made of."""
    train: int
    """Videos that are trained on."""
    validation: int
    left_out: int
    """Videos that are not used because they are damaged or missing."""
    examples: tuple[LeftOut, ...] = Field(default=())
    """The first of them."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """How many of them are missing, corrupt and so on; empty where the worker does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a data set that trials of a study were trained on."""

    study_id: int
    version: str
    trials: int
    last: datetime
    """When the last of them began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes of a data set, and how many videos of each a trial was validated on."""

    names: tuple[str, ...]
    validated: tuple[int, ...]


def seen(connection: Connection, study_id: int) -> DataSet | None:
    """Return what the trial of a study that ended last has found; None before one has said it."""
    return seen_by_study(connection, [study_id]).get(study_id)


def seen_by_study(connection: Connection, study_ids: Sequence[int]) -> dict[int, DataSet]:
    """Return what the trials that ended last have found, by the ids of those studies in which one has said it."""
    rows = connection.execute(_LATEST, {"study_ids": list(study_ids), "looked_at": _LOOKED_AT}).mappings()
    found = {row["study_id"]: _data_set(row["version"], row["dataset"]) for row in rows}
    return {study_id: one for study_id, one in found.items() if one is not None}


def versions(connection: Connection, study_ids: Sequence[int]) -> list[Version]:
    """Return the versions that studies have been trained on, the latest used first."""
    return [Version(**row) for row in connection.execute(_VERSIONS, {"study_ids": list(study_ids)}).mappings()]


def classes_by_study(connection: Connection, study_ids: Sequence[int]) -> dict[int, Classes]:
    """Return the classes as the latest confusion matrix of each study names them; of studies without any, nothing."""
    return {
        row.study_id: Classes(names=tuple(row.counts["class_names"]), validated=tuple(row.counts["videos"]))
        for row in connection.execute(_CLASSES, {"study_ids": list(study_ids)})
    }


def trained_by(connection: Connection, study_ids: Sequence[int], *, seconds: float) -> dict[int, dict[str, datetime]]:
    """Return the workers that have trained an epoch of a study within so many seconds, and when they were last seen."""
    found: dict[int, dict[str, datetime]] = {}
    for row in connection.execute(_TRAINED, {"study_ids": list(study_ids), "seconds": seconds}):
        found.setdefault(row.study_id, {})[row.worker] = row.last
    return found


def _data_set(version: str | None, found: Mapping[str, Any]) -> DataSet | None:
    try:
        return DataSet.model_validate({**found, "version": version})
    except (ValidationError, TypeError):
        return None  # of a worker of another release
