"""What a model says about itself, as plain data: no torch is needed to read it.

A card is a frozen :class:`ModelInfo`. The cards of one architecture stand in one file of
:mod:`models.cards`; the modules that they build stand in a file of the same name beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A real number from `low` to `high`, both included."""

    low: float
    high: float

    def normalize(self, value: object) -> Value | None:
        """Return `value` as a float, or None if it is not a number in range."""
        if isinstance(value, bool) or not isinstance(value, Real):
            return None
        number = float(value)
        return number if self.low <= number <= self.high else None

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"


FLAG = Choice(values=(False, True))


@dataclass(frozen=True, kw_only=True, slots=True)
class HParam:
    """A hyperparameter of an architecture: what it accepts, what it is unless told, what it does."""

    name: str
    default: Value
    accepts: Choice | Integer | Number
    doc: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRange:
    """A numeric range worth searching: a parameter of a study's space, by its flat name.

    `when` names parents and the values of theirs under which this one exists.
    """

    name: str
    low: float
    high: float
    log: bool = False
    integer: bool = False
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def as_spec(self) -> dict[str, object]:
        """Return it as a study spec writes it."""
        spec: dict[str, object] = {"type": "int" if self.integer else "float", "low": self.low, "high": self.high}
        return spec | ({"log": True} if self.log else {}) | _when_spec(self.when)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchChoice:
    """A few values worth searching; numbers count as ordered. See :class:`SearchRange`."""

    name: str
    values: tuple[Value, ...]
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def as_spec(self) -> dict[str, object]:
        """Return it as a study spec writes it."""
        ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        spec: dict[str, object] = {"type": "ordinal" if ordered else "categorical", "choices": list(self.values)}
        return spec | _when_spec(self.when)


SearchParameter = SearchRange | SearchChoice


def _when_spec(when: tuple[tuple[str, tuple[Value, ...]], ...]) -> dict[str, object]:
    return {"when": {parent: list(values) for parent, values in when}} if when else {}


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
    inputs: tuple[str, ...] = ("clip",)
    """What the model is called with: one clip, or a tuple of them such as ``("rgb", "flow")``."""
    min_frames: int = 1
    min_size: int = 1
    """Fewest pixels of the clip's shorter side."""
    parameters: int | None = None
    """Trainable numbers at 400 classes and every default; None where nobody has counted."""
    gflops: float | None = None
    """Billions of multiply-adds for one default clip, counting convolutions and matrix products."""
    search: tuple[SearchParameter, ...] = ()
    """What is worth searching in this model; see :func:`models.search_space`."""
    search_base: tuple[tuple[str, Value], ...] = ()
    """Settings of the training run, by their flat names, for which the ranges of `search` are meant."""

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
