"""The command of one `hpo-worker`, and what its environment holds: the same whoever starts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..client.connection import is_loopback
from ..errors import SetupError
from ..installation import child_environment, program_path
from ..settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCommand:
    """How one worker is started."""

    name: str
    """What a launcher calls it: `gpu-0`, `cpu-1`."""
    gpus: Sequence[int] = ()
    """Numbers of its GPUs, as `hpo-worker --gpus` takes them; none for the CPU."""
    threads: int | None = None
    """CPU threads; None leaves that to the worker."""
    cores: frozenset[int] | None = None
    """The cores that it may run on; None for any."""
    options: Sequence[str] = ()
    """Further options of `hpo-worker`, such as `--study NAME`; none of them is a secret."""

    def arguments(self) -> list[str]:
        """Return the command; it says nothing of the service, which the environment does."""
        numbers = ",".join(map(str, self.gpus))
        device = ["--gpus" if len(self.gpus) > 1 else "--gpu", numbers] if self.gpus else ["--cpu"]
        threads = [] if self.threads is None else ["--threads", str(self.threads)]
        return [program_path("hpo-worker"), *device, *threads, *self.options]


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the whole environment of a worker on this machine.

    A service of this machine is found by its files in the data directory, so that a worker follows it to another port.
    """
    found = {**child_environment(), "HPO_HOME": str(settings.home)}
    if settings.proving_file is None:
        found["HPO_URL"] = settings.api_url
    if settings.token is not None and settings.token != _kept_token(settings):
        found["HPO_TOKEN"] = settings.token
    return found


def environment_elsewhere(settings: Settings) -> dict[str, str]:
    """Return the variables that tell a worker on another machine of the service; the token goes another way.

    Raises:
        SetupError: the service listens on this machine alone.
    """
    if is_loopback(urlsplit(settings.api_url).hostname or ""):
        raise SetupError(
            f"{settings.api_url} is an address of this machine alone, which workers elsewhere cannot reach: serve with "
            "`hpo serve --host 0.0.0.0` and TLS, and give its address with --url"
        )
    found = {"HPO_URL": settings.api_url}
    if settings.ca_file is not None:
        found["HPO_CA_FILE"] = str(settings.ca_file)
    return found


def require_token(settings: Settings) -> str:
    """Return the token of the workers.

    Raises:
        SetupError: there is none.
    """
    if settings.token is None:
        raise SetupError(
            f"there is no token: start `hpo serve` on this machine, which leaves one in {settings.token_file}, "
            "or give one with --token-file or HPO_TOKEN"
        )
    return settings.token


def _kept_token(settings: Settings) -> str | None:
    try:
        return settings.token_file.read_text().strip()
    except OSError:
        return None
