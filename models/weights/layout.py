"""What a layout is: the names that one program gives to the tensors of its networks.

A layout recognises its files by names and shapes alone, and returns their tensors under our names, with the models and
options that are the same function as the file's network. The layouts are in :mod:`models.weights.layouts`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

from ..card import Value
from ..errors import WeightsError

AS_IT_IS = "as it is"
"""The layout of files with our own names, which are torchvision's in the networks that both have."""
COMPUTED = (".num_batches_tracked", ".relative_position_index")
"""Ends of the names of tensors that a model computes itself; files may lack them."""
State = Mapping[str, Tensor]
"""The tensors of a file by name."""
Rules = list[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Regular expressions and their replacements, applied in order to every name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A model that may be the same function as the network of a file."""

    model: str
    options: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    """The options that the file's function needs and that its names and shapes do not show."""
    stream: str | None = None
    """The part of a model of two streams that the file belongs to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A file's tensors as a layout reads them."""

    network: str
    """The network in its author's words, such as ``"SlowFast"``."""
    state: State
    """The tensors under our names, with everything that a change of names alone would get wrong already corrected."""
    names: Mapping[str, str]
    """The file's name of each tensor in `state`."""
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences about what differs from the file, for the person who loads it."""
    absent: tuple[str, ...] = ()
    """Beginnings of our names that such a file never has, such as the classifier in a pre-training: these stay new."""
    joined: tuple[str, ...] = ()
    """The file's names of tensors that are a part of another one here; that one has the name of its first part."""
    left_out: tuple[str, ...] = ()
    """The file's names of tensors that no model here needs, such as the decoder of a pre-training."""
    refusal: str | None = None
    """Why no model here can take the file, and which program does; `candidates` is empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The files of one program."""

    name: str
    read: Callable[[State], Reading | None]
    """Return the reading of a file of this layout, or None for any other file."""
    order: int = 0
    """Layouts of a lower order are asked first; those that recognise many files come last."""


def renamed(name: str, *steps: Rules) -> str:
    """Return `name` after all rules of all `steps`, in order."""
    for rules in steps:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
    return name


def by_rules(
    state: State, *steps: Rules, network: str, candidates: tuple[Candidate, ...] = (), notes: tuple[str, ...] = ()
) -> Reading:
    """Return the reading of a file that differs from our networks by its names alone.

    Raises WeightsError if two tensors of the file would get one name, since one of them would be lost.
    """
    names: dict[str, str] = {}
    for theirs in state:
        ours = renamed(theirs, *steps)
        if ours in names:
            raise WeightsError(f"{names[ours]} and {theirs} are one tensor of {network}, and the file has both")
        names[ours] = theirs
    return Reading(
        network=network,
        state={ours: state[theirs] for ours, theirs in names.items()},
        names=names,
        candidates=candidates,
        notes=notes,
    )


def refused(network: str, sentence: str) -> Reading:
    """Return the reading of a file that is recognised and that no model here can take."""
    return Reading(network=network, state={}, names={}, refusal=sentence)


def has(state: State, pattern: str) -> bool:
    """Return whether a name in `state` matches the regular expression from its start."""
    return any(re.match(pattern, name) for name in state)


def count(state: State, pattern: str) -> int:
    """Return the number of different first groups (or whole matches) of the names that match from their start."""
    matches = (re.match(pattern, name) for name in state)
    return len({match[match.re.groups and 1] for match in matches if match})


def resnet_depth(state: State, block: str) -> int:
    """Return the depth of a residual network by its blocks, 0 for another number of them.

    `block` is the beginning of a block's names as a regular expression with ``{}`` for its stage, from 1 on, and one
    group for its number.
    """
    blocks = (count(state, block.format(2)), count(state, block.format(3)))
    bottleneck = has(state, block.format(1) + r".*conv3\.")
    return {(2, 2): 18, (4, 6): 50 if bottleneck else 34, (4, 23): 101, (8, 36): 152}.get(blocks, 0)


def with_epsilon(state: State, theirs: float, ours: float = 1e-5) -> dict[str, Tensor]:
    """Return the tensors with the running variances that make batch norms of another epsilon compute the same.

    ``(variance + theirs) = (variance' + ours)``: exact outside training, when the running variances are used.
    """
    # In float64, because a variance may be much larger than the difference.
    return {
        name: tensor.double() + (theirs - ours) if name.endswith(".running_var") else tensor
        for name, tensor in state.items()
    }
