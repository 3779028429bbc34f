"""What `hpo.tune` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from ..client.replies import TrialSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """The end of a study, or how far it is."""

    study: str
    """Its name: `hpo.tune(..., name=...)` and `hpo study show` take it."""
    url: str
    """Where it was served."""
    state: str
    """`completed`, or why not: `active`, `paused`, `stopped` or `failed`."""
    reason: str | None
    """Why it ended, as a sentence."""
    objective: str
    best_params: Mapping[str, Any]
    """Of the trial that is believed to be the best, not of the luckiest number; of a front, of its first trial."""
    best_trial: int
    best_value: float
    """What that trial measured."""
    best_expected: float | None
    """What its configuration is expected to measure again; None where nothing is known beyond one value."""
    best_sd: float | None
    """The standard deviation of that; None likewise."""
    front: Sequence[int]
    """Numbers of the trials that none other beats in all objectives; with one objective, of the best."""
    records: Sequence[TrialSummary] = field(repr=False)
    """The trials as the service gives them."""
    spec: Mapping[str, Any] = field(repr=False)
    """The study as it is stored."""

    @property
    def trials(self) -> pandas.DataFrame:
        """One row for each trial, with the columns of `hpo.client.frames.trials_dataframe`."""
        from ..client.frames import trials_dataframe

        return trials_dataframe(sorted(self.records, key=lambda one: one["number"]), self.spec)

    def __str__(self) -> str:
        params = ", ".join(f"{name}={value!r}" for name, value in self.best_params.items())
        certain = "" if self.best_sd is None else f" (expected {self.best_expected:.6g} ± {self.best_sd:.2g})"
        return f"{self.study}: {self.objective} {self.best_value:.6g}{certain} with {params} (trial {self.best_trial})"
