"""The settings of this machine: data directory, database, API address, token.

They come from these environment variables: `HPO_HOME` (data directory), `DATABASE_URL` (Postgres; without it the
embedded server), `HPO_URL` (the API) and `HPO_TOKEN`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from .errors import SetupError

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process. Secrets do not appear in its repr."""

    home: Path
    """The data directory: token, embedded database, checkpoints, caches."""
    database_url: str | None = field(default=None, repr=False)
    """None: the embedded server in the data directory."""
    api_url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)

    @property
    def token_file(self) -> Path:
        """The file in which `hpo serve` writes the token for commands and workers of this user (mode 0600)."""
        return self.home / "token"

    @property
    def server_file(self) -> Path:
        """The file in which `hpo serve` writes its address while it runs."""
        return self.home / "server.json"

    @property
    def postgres_dir(self) -> Path:
        """The folder of the embedded database: in the data directory, unless the server's user cannot reach it there.

        Started by root, the server runs as a separate user. If a parent of the data directory is closed to others (a
        home directory of mode 0700), the database is under /var/lib, so that the closed folder stays closed.
        """
        inside = self.home / "postgres"
        if os.geteuid() != 0 or all(_is_searchable(folder) for folder in self.home.parents):
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path("/var/lib/video-hpo") / f"postgres-{digest}"

    @property
    def checkpoint_dir(self) -> Path:
        """Checkpoints of this machine's workers, one folder per trial."""
        return self.home / "checkpoints"

    @property
    def cache_dir(self) -> Path:
        """Prepared data sets."""
        return self.home / "cache"

    @classmethod
    def load(cls, *, home: Path | None = None, url: str | None = None, token_file: Path | None = None) -> Settings:
        """Return the settings from the arguments, else the environment, else the files of `hpo serve`.

        Raises:
            SetupError: the given token file cannot be read.
        """
        folder = (home or _default_home()).expanduser().absolute()
        return cls(
            home=folder,
            database_url=os.environ.get("DATABASE_URL") or None,
            api_url=(url or os.environ.get("HPO_URL") or _served_url(folder) or DEFAULT_URL).rstrip("/"),
            token=_token(folder, token_file),
        )


def _is_searchable(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IXOTH)
    except OSError:
        return True  # it does not exist yet: it will be made with the data directory


def _default_home() -> Path:
    if os.environ.get("HPO_HOME"):
        return Path(os.environ["HPO_HOME"])
    if os.geteuid() == 0:
        # The embedded Postgres cannot run as root, and the user it runs as must be able to reach its folder.
        return Path("/var/lib/video-hpo")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "video-hpo"


def _served_url(home: Path) -> str | None:
    try:
        return str(json.loads((home / "server.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None


def _token(home: Path, token_file: Path | None) -> str | None:
    if token_file is not None:
        try:
            return token_file.expanduser().read_text().strip()
        except OSError as error:
            message = f"the token file {token_file} cannot be read ({error.strerror}): check --token-file"
            raise SetupError(message) from error
    if os.environ.get("HPO_TOKEN"):
        return os.environ["HPO_TOKEN"].strip()
    try:
        return (home / "token").read_text().strip()
    except OSError:
        return None
