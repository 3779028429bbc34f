"""What every source of configurations offers, and how a proposal is checked."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..errors import HpoError
from ..trial import Params, Suggestion
from .history import History


class GeneratorError(HpoError):
    """The generator has no configuration to propose at the moment."""


class Generator(Protocol):
    """Proposes configurations from what is known: a pure function of the history, so that a restart changes nothing."""

    @property
    def name(self) -> str:
        """What a suggestion says it came from."""
        ...

    def propose(self, history: History, n: int) -> list[Suggestion]:
        """Return up to `n` different configurations that are not in `history.taken`; fewer when no more are found.

        Raises:
            GeneratorError: nothing can be proposed; the caller falls back to a Sobol sequence.
        """
        ...


@runtime_checkable
class Completer(Protocol):
    """A generator that can also propose with some values given."""

    def complete(self, history: History, guess: Params) -> Suggestion:
        """Return the best new configuration that has the values of `guess`, which lie in the space.

        Raises:
            GeneratorError: there is none that is new, or no model.
        """
        ...
