"""The interface of the methods: one form for the ask-and-tell of every library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hpo.trial import FailureKind, Params, ParamValue

from ..problems import Problem, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The run that a method is made for."""

    problem: Problem
    seed: int
    trials: int
    min_epochs: int = 1
    """No trial is stopped before it has done this many epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a trial comes from, and what the method predicted of its first objective at its end."""

    generator: str
    is_model: bool
    """Whether the method chose it by what it had learned, rather than for its start."""
    mean: float | None = None
    sd: float | None = None


class Method(Protocol):
    """An optimizer under test. The method numbers its trials in the order in which they begin."""

    def attach(self, params: Params) -> int:
        """Return the number of a new trial of a given configuration."""
        ...

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        """Return a new trial and its configuration, which the method chooses."""
        ...

    def report(self, trial: int, step: int, value: float) -> bool:
        """Return whether the trial stops or pauses, after recording its first objective at `step` epochs."""
        ...

    def promoted(self) -> int | None:
        """Return a paused trial that must continue before another begins; None if there is none."""
        ...

    def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
        """Record the outcome of a finished trial."""
        ...

    def stop(self, trial: int) -> bool:
        """Return whether the trial is only paused, after recording that `report` returned True for it."""
        ...

    def fail(self, trial: int, kind: FailureKind = FailureKind.OOM) -> None:
        """Record that the trial failed."""
        ...

    def origin(self, trial: int) -> Origin:
        """Return where the trial comes from."""
        ...

    def beliefs(self) -> Mapping[int, tuple[float, float]]:
        """Return the mean and sd that the method believes in for the end of each trial that was stopped early."""
        ...

    def best(self) -> int | None:
        """Return the trial that the method would export; None: the one with the best observed value."""
        ...
