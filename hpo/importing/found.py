"""What a file of another program says, before it is fitted to a study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

MOST_BYTES: Final = 256 * 2**20
"""Of a file with results."""
MOST_POINTS: Final = 500_000
"""Of all curves of a file together."""
State = Literal["completed", "stopped", "failed"]
OBJECTIVE: Final = "objective {}"
"""The name of a value that has only a place among the objectives, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTrial:
    """A training that has ended, in the words of the other program."""

    name: str
    """What it is called there."""
    params: Mapping[str, Any]
    state: State | None
    """None where the file does not say: whether it completed follows from its values."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """By step, as it was counted there."""
    message: str = ""
    """Why it failed."""

    def key(self) -> str:
        """Return what identifies it: the same for the same training, whatever its file is called."""
        curve = {str(step): dict(sorted(row.items())) for step, row in sorted(self.curve.items())}
        said = [self.name, dict(self.params), self.state, dict(self.metrics), curve]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that was found in one file."""

    source: str
    """For a person, such as `the Optuna study 'sweep'`."""
    trials: Sequence[FoundTrial]
    open: int = 0
    """Trainings that have not ended there, which are left out."""
    directions: Sequence[str] = ()
    """`maximize` or `minimize` of each objective, where the program says it."""
    may_hold_more: bool = False
    """Whether columns may be anything, so that unknown ones are no parameters."""
