"""Trials that were run, as programs written for Optuna read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from ..client.replies import TrialState as OurState
from ..client.replies import TrialSummary, Value


class TrialState(Enum):
    """The state of a trial in Optuna's words."""

    RUNNING = 0
    COMPLETE = 1
    PRUNED = 2
    FAIL = 3
    WAITING = 4

    def is_finished(self) -> bool:
        """Return whether the trial has ended."""
        return self not in (TrialState.RUNNING, TrialState.WAITING)


STATES: Final[Mapping[OurState, TrialState]] = {
    "suggested": TrialState.WAITING,
    "paused": TrialState.WAITING,
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "withdrawn": TrialState.FAIL,
}
"""Our states in Optuna's words, as on the dashboard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenTrial:
    """A trial as it was when it was read."""

    number: int
    state: TrialState
    values: list[float] | None
    """One for each objective; None where there is no result."""
    params: dict[str, Value]
    intermediate_values: dict[int, float]
    user_attrs: dict[str, Any] = field(default_factory=dict)
    """Those that this program has set."""
    datetime_start: datetime | None
    datetime_complete: datetime | None

    @property
    def value(self) -> float | None:
        """The value of the only objective."""
        return None if self.values is None else self.values[0]

    @property
    def duration(self) -> timedelta | None:
        """How long it took; None before it has ended."""
        if self.datetime_start is None or self.datetime_complete is None:
            return None
        return self.datetime_complete - self.datetime_start

    @property
    def last_step(self) -> int | None:
        """The last step that was reported."""
        return max(self.intermediate_values, default=None)


def frozen(
    trial: TrialSummary,
    objectives: Sequence[str],
    curve: Mapping[int, float],
    user_attrs: Mapping[str, Any],
) -> FrozenTrial:
    """Return a trial of the service in this form."""
    metrics = trial["metrics"] or {}
    values = [metrics[metric] for metric in objectives if metric in metrics]
    return FrozenTrial(
        number=trial["number"],
        state=STATES[trial["state"]],
        values=values if len(values) == len(objectives) else None,
        params=dict(trial["params"]),
        intermediate_values=dict(curve),
        user_attrs=dict(user_attrs),
        datetime_start=_time(trial["started_at"]),
        datetime_complete=_time(trial["finished_at"]),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
