"""What a process that scores a part of an evaluation is told, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from data.specs import DatasetSpec

from ..device.detection import Device

ORPHANED: Final = 3
"""Exit status of a process whose parent has ended."""


class ShardJob(BaseModel):
    """The first line that the process reads. When its input closes, the parent has ended, and the process ends too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Path
    dataset: DatasetSpec
    dataset_version: str
    """What the parent has found there. A process that finds another one would score a part of another list."""
    cache_dir: Path
    device: Device
    clips: int
    crops: int
    number: int
    of: int
    """It scores part `number` (from 0) of so many."""
    opening: str | None
    """The `id` of the opening of the test list, which the parent has recorded; None for the validation list."""
    result: int
    """Descriptor of the file for the scores, an archive of NumPy; it stays empty where the part has no videos."""


class ShardEvent(BaseModel):
    """A line that the process sends over a pipe of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    done: int = 0
    """Videos scored so far."""
    total: int = 0
    """Of all parts together."""
    error: str | None = None
    """Why there are no scores: the last line."""
