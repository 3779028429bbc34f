"""What the trainings of a study have found in its data set: how many videos are used, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection, text

_LOOKED_AT: Final = 20
# The latest trials only: one that a worker of an earlier release ran says nothing of its data set.
_LATEST: Final = text("""
SELECT dataset_version AS version, environment -> 'dataset' AS dataset
FROM (
    SELECT dataset_version, environment, finished_at FROM trial
    WHERE study_id = :study_id AND finished_at IS NOT NULL
    ORDER BY finished_at DESC LIMIT :looked_at
) AS latest
WHERE environment ? 'dataset'
ORDER BY finished_at DESC LIMIT 1
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

    def sentence(self) -> str:
        """Return it in words, without a full stop."""
        used = f"{self.train:,} videos to train, {self.validation:,} to validate"
        if not self.left_out:
            return used
        first = f", such as {self.examples[0].path} ({self.examples[0].note})" if self.examples else ""
        plural = "video is" if self.left_out == 1 else "videos are"
        return f"{used}; {self.left_out:,} {plural} left out{first}"


def seen(connection: Connection, study_id: int) -> DataSet | None:
    """Return what the trial of a study that ended last has found; None before one has said it."""
    row = connection.execute(_LATEST, {"study_id": study_id, "looked_at": _LOOKED_AT}).mappings().one_or_none()
    return None if row is None else _data_set(row["version"], row["dataset"])


def _data_set(version: str | None, found: Mapping[str, Any]) -> DataSet | None:
    try:
        return DataSet.model_validate({**found, "version": version})
    except (ValidationError, TypeError):
        return None  # of a worker of another release
