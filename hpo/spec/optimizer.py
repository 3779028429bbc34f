"""Which optimizer proposes configurations, and what a person knows beforehand."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, field_validator

from .flat import flatten
from .parameters import Choice, Strict

LONGEST_NAME = 100
NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}$"
Guess = dict[str, Choice]


class OptimizerConfig(Strict):
    """Which optimizer proposes configurations: `ax` is Bayesian optimization, the others are for comparison."""

    name: Literal["ax", "sobol", "random", "tpe", "gp", "nsga2"] = "ax"
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0
    startup_trials: Annotated[StrictInt, Field(ge=1)] | Literal["auto"] = "auto"
    """Quasi-random trials before the model takes over; auto: half the number of parameters, at least 5."""
    enqueue: Annotated[list[Guess], Field(max_length=1000)] = Field(default_factory=list)
    """A person's own guesses, tried first: values of some parameters or of all; the optimizer chooses the others."""
    warm_start: Annotated[list[Annotated[str, Field(pattern=NAME_PATTERN)]], Field(max_length=10)] = Field(
        default_factory=list
    )
    """Earlier studies to learn from: their trials are taken over, as they are then, when this study is created."""

    @field_validator("warm_start")
    @classmethod
    def _named_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("a study appears twice; name each once")
        return value

    @field_validator("enqueue", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [flatten(guess) if isinstance(guess, dict) else guess for guess in value]

    @field_validator("enqueue")
    @classmethod
    def _distinct(cls, value: list[Guess]) -> list[Guess]:
        for place, guess in enumerate(value):
            if guess in value[:place]:
                raise ValueError(f"guess {place} is the same as guess {value.index(guess)}; each is tried once")
        return value
