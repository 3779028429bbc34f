"""The settings of one API process."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What `hpo serve` proves itself with to the clients that read its address in the data directory."""

    url: str
    """The address as it is written down there."""
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """How the API behaves. Its replicas share `key`; nothing else has to agree."""

    key: bytes = field(repr=False)
    """Hashes the tokens; the same for every replica and across restarts."""
    lease_seconds: float = 60.0
    """A worker that is silent for so long loses its trial."""
    upkeep_seconds: float = 15.0
    """How often expired leases are reaped and finished studies ended."""
    fallback_seconds: float = 5.0
    """How long claims of a study without an optimizer go unanswered before a quasi-random trial is handed out."""
    claim_wait_seconds: float = 5.0
    """How long a claim is held at the most while there is no trial, where the worker asks for it."""
    session_seconds: float = 12 * 3600.0
    """How long a browser stays logged in."""
    login_code_seconds: float = 3600.0
    """How long a login link is good for."""
    names: frozenset[str] = frozenset()
    """The names, in lower case, that a request may call this server by, besides `localhost` and IP addresses."""
    identity: Identity | None = None
    """None: no data directory names this server."""
    processes: int = 1
    """How many processes serve the API here: wrong guesses are counted by each, so each allows its part of them."""
    worker_connections: int = 15
    """The most connections to the database for the calls of workers about trials, beside those of everything else."""
    dashboard: bool = True
    """Whether optuna-dashboard is served."""

    def __post_init__(self) -> None:
        if len(self.key) < 16:
            raise ValueError("the key must have at least 16 bytes")
