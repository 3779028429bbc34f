"""The cards of models: their options, clips and sizes as plain data, readable without torch.

A card is a frozen :class:`ModelInfo`. The cards of one architecture are in one module of :mod:`models.cards`, and the
networks that they build in the module of the same name in :mod:`models.architectures`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

Value = bool | int | float | str
"""The value of a hyperparameter, of a type that JSON, YAML and the search space of a study can hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One of a few values."""

    values: tuple[Value, ...]

    def normalize(self, value: object) -> Value | None:
        """Return the listed value that equals `value`, or None.

        ``True`` equals neither ``1`` nor ``1.0`` here.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text that matches a regular expression as a whole, such as a name in another library; `words` describes it."""

    pattern: str
    words: str

    def normalize(self, value: object) -> Value | None:
        """Return `value` if it is such a text, or None."""
        return value if isinstance(value, str) and re.fullmatch(self.pattern, value) else None

    def __str__(self) -> str:
        return self.words


FLAG = Choice(values=(False, True))


@dataclass(frozen=True, kw_only=True, slots=True)
class HParam:
    """A hyperparameter of an architecture: its accepted values, its default and its meaning."""

    name: str
    default: Value
    accepts: Choice | Integer | Number | Text
    doc: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRange:
    """A recommended numeric search range of a study's parameter, by its flat name.

    `when` holds (parent, values) pairs: the parameter exists only if each parent has one of its values.
    """

    name: str
    low: float
    high: float
    log: bool = False
    integer: bool = False
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def as_spec(self) -> dict[str, object]:
        """Return the parameter as it is written in a study spec."""
        spec: dict[str, object] = {"type": "int" if self.integer else "float", "low": self.low, "high": self.high}
        return spec | ({"log": True} if self.log else {}) | _when_spec(self.when)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchChoice:
    """A recommended set of search values; numbers are ordered. See :class:`SearchRange`."""

    name: str
    values: tuple[Value, ...]
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def as_spec(self) -> dict[str, object]:
        """Return the parameter as it is written in a study spec."""
        ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        spec: dict[str, object] = {"type": "ordinal" if ordered else "categorical", "choices": list(self.values)}
        return spec | _when_spec(self.when)


SearchParameter = SearchRange | SearchChoice


def _when_spec(when: tuple[tuple[str, tuple[Value, ...]], ...]) -> dict[str, object]:
    return {"when": {parent: list(values) for parent, values in when}} if when else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """The clip that a model is published with.

    It has `frames` frames, every `stride`-th of the video, at `size` x `size` pixels. `mean` and `std` normalise the
    RGB channels of values scaled to 0..1.
    """

    frames: int
    stride: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Divides:
    """A rule between two numbers of a configuration: `of` must be a multiple of `divisor`.

    Both are names of hyperparameters, or ``frames``: the clip's length.
    """

    divisor: str
    of: str

    def broken_by(self, values: Mapping[str, object]) -> str | None:
        """Return what is wrong with `values`, or None; a rule about a missing name is satisfied."""
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
    """The common name of the architecture, shared by its sizes."""
    paper: str
    clip: Clip
    """The default clip; a model takes any other clip that satisfies the rules and the minima."""
    builder: str
    """``"module:callable"``; the callable takes a :class:`ModelSettings` and returns the model."""
    hparams: tuple[HParam, ...]
    fixed: tuple[tuple[str, Value], ...] = ()
    """Arguments of the builder that define this model and cannot be changed."""
    rules: tuple[Divides, ...] = ()
    clip_options: tuple[str, ...] = ()
    """Hyperparameters, of ``frames`` and ``size``, that must be those of the clip: the model takes no other one."""
    dropout: float = 0.5
    """Default dropout probability before the classifier."""
    inputs: tuple[str, ...] = ("clip",)
    """The inputs of the model: one clip, or a tuple of clips such as ``("rgb", "flow")``."""
    min_frames: int = 1
    min_size: int = 1
    """Fewest pixels of the clip's shorter side."""
    fully_convolutional: bool = False
    """Whether it is published with a classifier that is applied at each position of a larger clip's maps; its builder
    makes a :class:`FullyConvolutionalModel`."""
    of_images: bool = False
    """Whether it classifies single images: a network that sees each frame by itself."""
    parameters: int | None = None
    """Trainable parameters at 400 classes with all defaults; None if they were not counted."""
    gflops: float | None = None
    """Billions of multiply-adds for one default clip, counting convolutions and matrix products."""
    search: tuple[SearchParameter, ...] = ()
    """Recommended search parameters of this model; see :func:`models.search_space`."""
    search_base: tuple[tuple[str, Value], ...] = ()
    """Settings of the training run, by their flat names, that the ranges of `search` assume."""

    def defaults(self) -> dict[str, Value]:
        """Return every hyperparameter at its default."""
        return {hparam.name: hparam.default for hparam in self.hparams}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """The checked arguments that :func:`models.create_model` passes to a builder."""

    info: ModelInfo
    num_classes: int
    in_channels: int
    dropout: float
    hparams: Mapping[str, Value]
    """All hyperparameters of the card with their values."""

    def arguments(self) -> dict[str, Value]:
        """Return hyperparameters and fixed values together: an architecture's configuration."""
        return {**dict(self.info.fixed), **self.hparams}
