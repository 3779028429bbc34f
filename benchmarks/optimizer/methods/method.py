"""What the protocols ask of a method: the ask-and-tell of every library, in one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hpo.trial import Params, ParamValue

from ..problems import Problem, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One run: what a method is made for."""

    problem: Problem
    seed: int
    trials: int


class Method(Protocol):
    """An optimizer under test. Trials are numbered by the method, from the order in which they begin."""

    def attach(self, params: Params) -> int:
        """Begin a trial of a given configuration."""
        ...

    def ask(self) -> tuple[int, dict[str, ParamValue]]:
        """Begin a trial of a configuration of the method's choice."""
        ...

    def report(self, trial: int, step: int, value: float) -> bool:
        """Take in the first objective after `step` epochs and say whether the trial stops or pauses here."""
        ...

    def promoted(self) -> int | None:
        """Return a paused trial that goes on before another begins; None where there is none."""
        ...

    def tell(self, trial: int, values: Values, memory_gib: float | None = None) -> None:
        """Take in the outcome of a finished trial."""
        ...

    def stop(self, trial: int) -> None:
        """Take in that the trial ended, or paused, when `report` said so."""
        ...

    def fail(self, trial: int) -> None:
        """Take in that the trial ran out of memory."""
        ...
