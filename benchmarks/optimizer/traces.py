"""Regret over trials and over epochs, from rows.

Regret is 0 at the optimum and 1 at the median random configuration (`reference`). It is the regret of the configuration
with the best mean among those tried so far, or, as `incumbent`, of the one with the best observed value: with noise the
two differ, and a leaderboard would show the incumbent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from .problems.yahpo import LCBENCH_EPOCHS
from .reference import reference_of
from .rows import Row, Run

Score = Literal["tried", "incumbent"]
MIN_REGRET: Final = 1e-3
"""Smaller regrets are raised to this: on tables regret can be exactly 0, and ratios would have no meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The rows of a report, by run, for one scrambling."""

    rows: Mapping[Run, Row]
    scramble: int | None = None
    score: Score = "tried"

    def seeds(self, protocol: str, problem: str, *methods: str) -> list[int]:
        """Return the seeds that all `methods` have a row of."""
        found = [{run.seed for run in self.rows if self._matches(run, protocol, problem, name)} for name in methods]
        return sorted(set.intersection(*found)) if found else []

    def row(self, protocol: str, problem: str, method: str, seed: int) -> Row:
        """Return one row."""
        return self.rows[Run(protocol, problem, method, seed, self.scramble)]

    def traces(self, protocol: str, problem: str, method: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Return the regret after each trial, (seeds, trials)."""
        rows = [self.row(protocol, problem, method, seed) for seed in seeds]
        return np.array([trace_of(row, self.score) for row in rows])

    def epoch_traces(
        self, problem: str, method: str, seeds: Sequence[int], protocol: str = "fidelity"
    ) -> NDArray[np.float64]:
        """Return the regret after each epoch spent, (seeds, epochs)."""
        return np.array([epoch_trace(self.row(protocol, problem, method, seed)) for seed in seeds])

    def versions(self) -> dict[str, str]:
        """Return the version of each method."""
        return {row.run.method: row.version for row in self.rows.values()}

    def _matches(self, run: Run, protocol: str, problem: str, method: str) -> bool:
        return (run.protocol, run.problem, run.method, run.scramble) == (protocol, problem, method, self.scramble)


def trace_of(row: Row, score: Score = "tried") -> NDArray[np.float64]:
    """Return the regret after each trial of a run of one objective."""
    reference = reference_of(row.run.problem)
    regrets = reference.regret(row.data["truths"])
    if score == "tried" or "values" not in row.data:
        best = np.minimum.accumulate(regrets)
    else:
        losses = reference.sign * np.array(row.data["values"])
        is_best = losses <= np.minimum.accumulate(losses)
        best = regrets[np.maximum.accumulate(np.where(is_best, np.arange(len(losses)), 0))]
    return np.maximum(best, MIN_REGRET)


def epoch_trace(row: Row) -> NDArray[np.float64]:
    """Return the regret of the best configuration that ran to its end, after each epoch; infinite before the first."""
    budget = row.trials * LCBENCH_EPOCHS
    trace = np.full(budget, np.inf)
    reference = reference_of(row.run.problem)
    spent = 0
    for epochs, truth, completed, *_ in row.data["trials"]:
        spent += epochs
        if completed:
            regret = max(float(reference.regret([truth])[0]), MIN_REGRET)
            trace[spent - 1 :] = np.minimum(trace[spent - 1 :], regret)
    return trace
