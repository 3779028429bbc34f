"""What the rest of `hpo` may ask of a task of any kind: its metrics, its settings, the configuration of a trial."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictInt, field_validator, model_validator

from ...trial import Params
from ..flat import flatten
from ..parameters import Strict

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that trials report after every epoch."""

    direction: Direction
    """The natural one, for an objective that names none and for a target."""
    meaning: str
    is_share: bool = False
    """Whether it lies between 0 and 1."""
    on_demand: bool = False
    """Whether it takes time to measure, so that only trials of studies report it that name it."""


class TaskConfig(Strict, ABC):
    """What every trial of the study trains on, for how long, and the values that the space does not vary.

    A kind of task is a subclass with a `kind` of its own, its further fields, and answers to the methods below.
    Settings are named by flat keys, such as `lr` or `clip.frames`: those that `base` fixes and the space varies.
    """

    kind: str
    epochs: Annotated[StrictInt, Field(ge=1, le=10_000)] = 40
    timeout_minutes: Annotated[float, Field(gt=0)] | None = None
    """Training time after which a trial is failed(timeout); None for no limit."""
    base: dict[str, Any] = Field(default_factory=dict)

    clip_word: ClassVar[str] = "clip"
    """What people call one item of the data set, where there is one."""
    validated_on: ClassVar[str] = "clips"
    """What people call the items that a share is measured on."""
    architecture: ClassVar[str | None] = None
    """The setting that says what is trained, if there is one; `architecture.NAME` are options of it."""
    memory_powers: ClassVar[Mapping[str, float]] = MappingProxyType({})
    """Settings that peak memory grows with, and the powers in which it is believed to."""
    time_powers: ClassVar[Mapping[str, float]] = MappingProxyType({})
    """Settings that the time of an epoch grows with, and the powers in which it is believed to."""

    meaningless: ClassVar[frozenset[str]] = frozenset()
    """Settings that ranges of models have and this kind of task has not."""

    @model_validator(mode="before")
    @classmethod
    def _type_is_kind(cls, value: Any) -> Any:
        """Take `type` for `kind`: a parameter has a type, and a task is easily written alike."""
        if isinstance(value, Mapping) and "type" in value and "kind" not in value:
            return {"kind": value["type"], **{key: inner for key, inner in value.items() if key != "type"}}
        return value

    @field_validator("base", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        return flatten(value) if isinstance(value, dict) else value

    @property
    @abstractmethod
    def reported_metrics(self) -> Mapping[str, Metric]:
        """The metrics that trials report, by name. Objectives, constraints and targets are written in these."""

    @classmethod
    @abstractmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the settings that hold where neither base nor space says otherwise."""

    @classmethod
    def recommended(cls) -> Mapping[str, Any]:
        """Return the settings that a new study gets where it says nothing.

        They are written into its `base` when it is created. `defaults` cannot change: what earlier releases stored
        relies on them.
        """
        return {}

    @abstractmethod
    def invalid_value(self, key: str, value: object) -> str | None:
        """Return why the setting `key` cannot be `value`, as a sentence; None where it can.

        Raises:
            KeyError: there is no such setting; the message is a sentence, with what was perhaps meant.
        """

    @abstractmethod
    def config(self, params: Params, *, seed: int) -> dict[str, Any]:
        """Return the complete flat configuration of a trial: what a worker gets and an export holds.

        It has the key `seed`: `seed` where neither base nor `params` sets one.
        """

    @abstractmethod
    def config_problems(self, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for everything that keeps `config` from being a configuration of this task."""
