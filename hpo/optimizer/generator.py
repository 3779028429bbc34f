"""The interfaces of candidate generators: what each must offer, and the error it raises."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..errors import HpoError
from ..trial import Params, Suggestion
from .history import History


class GeneratorError(HpoError):
    """The generator cannot propose a configuration at the moment."""


class Generator(Protocol):
    """Proposes configurations, as a pure function of the history: a restart changes nothing."""

    @property
    def name(self) -> str:
        """The name that suggestions carry as their origin."""
        ...

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Return up to `n` different configurations that are not in `history.taken`; fewer if no more are found.

        Raises:
            GeneratorError: no configuration can be proposed; the caller falls back to a Sobol sequence.
        """
        ...


@runtime_checkable
class Batcher(Protocol):
    """A generator that can also propose several configurations for little more than one."""

    def batch(self, history: History, n: int) -> list[Suggestion]:
        """Return up to `n` different new configurations of one fit; the first is that of `propose`.

        Raises:
            GeneratorError: no configuration can be proposed.
        """
        ...


@runtime_checkable
class Completer(Protocol):
    """A generator that can also complete a configuration of which some values are given."""

    def complete(self, history: History, guess: Params) -> Suggestion:
        """Return the best new configuration that has the values of `guess`, which must be in the space.

        Raises:
            GeneratorError: there is no new one, or no model yet.
        """
        ...
