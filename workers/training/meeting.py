"""Where the ranks of a run find each other; known without PyTorch, to those that start them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

_LOOPBACK: Final = "lo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where the ranks of a run, and of no other, find each other."""

    path: str = ""
    """On one machine: of a file that is empty or missing before the first rank comes."""
    host: str = ""
    port: int = 0
    """On several: of the machine of the first rank."""
    handle: int | None = None
    """The socket that listens there, which the first rank has."""
    interface: str = _LOOPBACK
    """The network interface over which ranks talk; empty to leave that to the libraries. On one machine, nothing
    listens where others could reach it, and no host name must resolve."""

    def arguments(self) -> list[str]:
        """Return this as arguments of a process."""
        return [self.path, self.host, str(self.port), "" if self.handle is None else str(self.handle), self.interface]

    @classmethod
    def of_arguments(cls, given: Sequence[str]) -> Self:
        """Return the meeting whose :meth:`arguments` these are."""
        path, host, port, handle, interface = given
        return cls(path=path, host=host, port=int(port), handle=int(handle) if handle else None, interface=interface)
