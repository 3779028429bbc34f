"""What every source of configurations offers, and how a proposal is checked."""

from __future__ import annotations

from typing import Protocol

from ..errors import HpoError
from ..trial import Suggestion
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
        """Give up to `n` different configurations that are not in `history.taken`; fewer when no more are found.

        Raises:
            GeneratorError: nothing can be proposed; the caller falls back to a Sobol sequence.
        """
        ...
