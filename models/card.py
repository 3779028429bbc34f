"""What a model says about itself, as plain data: no torch is needed to read it.

A card is a frozen :class:`ModelInfo`. The cards of one architecture stand in one file of
:mod:`models.cards`; the modules that they build stand in a file of the same name beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

Value = bool | int | float | str
"""A hyperparameter's value: what JSON, YAML and a study's search space can hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One of a few values."""

    values: tuple[Value, ...]

    def normalize(self, value: object) -> Value | None:
        """Return the listed value that `value` stands for, or None if it is not listed.

        Types count: neither ``1`` nor ``1.0`` stands for ``True``.
        """
        for known in self.values:
            if isinstance(value, bool) == isinstance(known, bool) and value == known:
                return known
        return None

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Integer:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int

    def normalize(self, value: object) -> Value | None:
        """Return `value` as an int, or None if it is not a whole number in range."""
        if isinstance(value, bool) or not isinstance(value, Integral):
            return None
        number = int(value)
        return number if self.low <= number <= self.high else None

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}"


FLAG = Choice(values=(False, True))


@dataclass(frozen=True, kw_only=True, slots=True)
class HParam:
    """A hyperparameter of an architecture: what it accepts, what it is unless told, what it does."""

    name: str
    default: Value
    accepts: Choice | Integer
    doc: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """The clip that a model is published with.

    `frames` are what the network sees, taken every `stride`-th from the video, at `size` x `size`
    pixels. `mean` and `std` are per RGB channel, of values scaled to 0..1.
    """

    frames: int
    stride: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Divides:
    """A rule between two numbers of a configuration: `divisor` divides `of` without rest.

    Both are names of hyperparameters, or ``frames``: the clip's length.
    """

    divisor: str
    of: str

    def broken_by(self, values: Mapping[str, object]) -> str | None:
        """Return what is wrong with `values`, or None; a rule about an absent name holds."""
        divisor, of = values.get(self.divisor), values.get(self.of)
        if not isinstance(divisor, int) or not isinstance(of, int) or of % divisor == 0:
            return None
        return (
            f"{self.divisor} = {divisor} does not divide {self.of} = {of}; "
            f"choose {self.of} as a multiple of {self.divisor}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A model's card."""

    name: str
    family: str
    """The architecture's name as people say it, shared by its sizes."""
    paper: str
    clip: Clip
    """The default clip; a model takes any other that keeps the rules and the minima."""
    builder: str
    """``"module:callable"``; the callable takes a :class:`ModelSettings` and returns the model."""
    hparams: tuple[HParam, ...]
    fixed: tuple[tuple[str, Value], ...] = ()
    """What tells this model from its siblings of the same builder and may not be changed."""
    rules: tuple[Divides, ...] = ()
    dropout: float = 0.5
    """Probability before the classifier, unless told."""
    min_frames: int = 1
    min_size: int = 1
    """Fewest pixels of the clip's shorter side."""

    def defaults(self) -> dict[str, Value]:
        """Return every hyperparameter at its default."""
        return {hparam.name: hparam.default for hparam in self.hparams}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """Everything that a builder needs, checked: what :func:`models.create_model` hands to it."""

    info: ModelInfo
    num_classes: int
    in_channels: int
    dropout: float
    hparams: Mapping[str, Value]
    """Every hyperparameter of the card, none missing."""

    def arguments(self) -> dict[str, Value]:
        """Return hyperparameters and fixed values together: an architecture's configuration."""
        return {**dict(self.info.fixed), **self.hparams}
