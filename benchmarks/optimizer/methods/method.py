"""The interface of the methods: one form for the ask-and-tell of every library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hpo.trial import Params, ParamValue

from ..problems import Problem, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The run that a method is made for."""

    problem: Problem
    seed: int
    trials: int


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

    def stop(self, trial: int) -> None:
        """Record that the trial was stopped or paused after `report` returned True."""
        ...

    def fail(self, trial: int) -> None:
        """Record that the trial ran out of memory."""
        ...
