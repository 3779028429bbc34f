"""The settings of this machine: data directory, database, API address, token.

They come from these environment variables: `HPO_HOME` (data directory), `DATABASE_URL` (Postgres; without it the
embedded server), `DATABASE_PASSWORD_FILE` (its password, if the URL has none), `HPO_URL` (the API), `HPO_CA_FILE`
(certificates to trust besides the usual ones), `HPO_TOKEN`, and three lists of folders, separated as in `PATH`:
`HPO_WEIGHTS_ROOTS` (weights files; without it `weights` in the data directory), `HPO_DATA_ROOTS` (data sets; addresses,
too) and `HPO_CHECKPOINT_ROOTS` (checkpoints of other data directories).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from .errors import SetupError
from .served import is_served

DEFAULT_URL = "http://127.0.0.1:8000"
SERVER_FILE = "server.json"
CHECKPOINTS = "checkpoints"
_BETWEEN_PLACES = re.compile(r":(?!//|\d+(?:[/:]|$))")
"""Between places, and not in `s3://bucket` or before the number of a port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAddress:
    """What `hpo serve` writes down while it runs."""

    url: str
    key: str = field(repr=False)
    """What the service proves itself with: another program at its address does not have it."""
    certificate: str | None = None
    """File of its certificate, if it speaks TLS; clients of this user trust it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process. Secrets do not appear in its repr."""

    home: Path
    """The data directory: token, embedded database, checkpoints, caches."""
    database_url: str | None = field(default=None, repr=False)
    """None: the embedded server in the data directory."""
    api_url: str = DEFAULT_URL
    proving_file: Path | None = None
    """The server file, where nobody named the address: the service there must prove to be the one that wrote it."""
    ca_file: Path | None = None
    """Certificates that are trusted besides the usual ones."""
    token: str | None = field(default=None, repr=False)
    weights_roots: tuple[Path, ...] = ()
    """Folders of the files that trainings may start from, searched in their order."""
    data_roots: tuple[Path, ...] = ()
    """Folders that data sets may be in, where somebody named any."""
    remote_roots: tuple[str, ...] = ()
    """Addresses (`s3://bucket`) that data sets may be at; no other is read."""
    checkpoint_roots: tuple[Path, ...] = ()
    """Folders of checkpoints: that of this data directory first."""

    @property
    def token_file(self) -> Path:
        """The file in which `hpo serve` writes the token for commands and workers of this user (mode 0600)."""
        return self.home / "token"

    @property
    def server_file(self) -> Path:
        """The file in which `hpo serve` writes its address while it runs."""
        return self.home / SERVER_FILE

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
        return self.home / CHECKPOINTS

    @property
    def cache_dir(self) -> Path:
        """Prepared data sets."""
        return self.home / "cache"

    @classmethod
    def load(
        cls,
        *,
        home: Path | None = None,
        url: str | None = None,
        token_file: Path | None = None,
        weights_roots: Sequence[Path] | None = None,
        data_roots: Sequence[Path | str] | None = None,
    ) -> Settings:
        """Return the settings from the arguments, else the environment, else the files of `hpo serve`.

        Raises:
            SetupError: the given token file, or that of the password, cannot be read.
        """
        folder = (home or _default_home()).expanduser().absolute()
        given_url, given_token = url or os.environ.get("HPO_URL"), _given_token(token_file)
        served = None if given_url else read_server_file(folder / SERVER_FILE)
        # Somebody who gives a token and no address may mean a tunnel at the usual port.
        is_found_here = not given_url and (served is not None or given_token is None)
        named = [str(root) for root in data_roots or _listed_places("HPO_DATA_ROOTS")]
        return cls(
            home=folder,
            database_url=_database_url(),
            api_url=(given_url or (served.url if served else DEFAULT_URL)).rstrip("/"),
            proving_file=folder / SERVER_FILE if is_found_here else None,
            ca_file=_ca_file(served),
            token=given_token or _kept_token(folder),
            weights_roots=_folders(weights_roots, "HPO_WEIGHTS_ROOTS") or (folder / "weights",),
            data_roots=tuple(Path(root).expanduser().absolute() for root in named if "://" not in root),
            remote_roots=tuple(root for root in named if "://" in root),
            checkpoint_roots=(folder / CHECKPOINTS, *_folders(None, "HPO_CHECKPOINT_ROOTS")),
        )


def _database_url() -> str | None:
    url, file = os.environ.get("DATABASE_URL") or None, os.environ.get("DATABASE_PASSWORD_FILE")
    if url is None or not file:
        return url
    parts = urlsplit(url)
    if parts.password is not None:
        return url
    password = quote(secret_in(Path(file), "DATABASE_PASSWORD_FILE"), safe="")
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))


def _ca_file(served: ServedAddress | None) -> Path | None:
    named = os.environ.get("HPO_CA_FILE") or (None if served is None else served.certificate)
    return Path(named) if named else None


def secret_in(path: Path, named_by: str) -> str:
    """Return what a file holds, without spaces around it.

    Raises:
        SetupError: it cannot be read; the message says that `named_by` named it.
    """
    try:
        return path.expanduser().read_text().strip()
    except OSError as error:
        raise SetupError(f"the file {path} cannot be read ({error.strerror}): check {named_by}") from error


def _folders(given: Sequence[Path] | None, variable: str) -> tuple[Path, ...]:
    """Return the folders that were given, else those that the environment names."""
    listed = os.environ.get(variable, "").split(os.pathsep)
    return tuple(root.expanduser().absolute() for root in given or [Path(root) for root in listed if root])


def _listed_places(variable: str) -> list[str]:
    """Return the folders and addresses that a variable lists with colons between them."""
    return [place for place in _BETWEEN_PLACES.split(os.environ.get(variable, "")) if place]


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


def read_server_file(path: Path) -> ServedAddress | None:
    """Return what `hpo serve` wrote down; None where it does not run, or is of a release that wrote no key.

    Raises:
        SetupError: another user wrote it or could, and would be sent the token.
    """
    try:
        with path.open() as file:
            about = os.fstat(file.fileno())
            found = json.loads(file.read())
        if is_of_stranger(about, path.parent) or about.st_mode & stat.S_IWOTH:
            raise SetupError(
                f"another user than you can say in {path} where the service is, and would be sent your token: remove "
                "the file, and start the service again"
            )
        url, key = str(found["url"]).rstrip("/"), str(found["key"])
        # In a directory that machines share, only the server's own can tell whether it lives.
        if found.get("host") in (None, socket.gethostname()) and not is_served(path.parent):
            return None
        return ServedAddress(url=url, key=key, certificate=found.get("certificate"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_of_stranger(found: os.stat_result, home: Path) -> bool:
    """Return whether a file in a data directory belongs to neither this user nor root nor the owner of the folder."""
    return found.st_uid not in (os.geteuid(), 0, home.stat().st_uid)


def _given_token(token_file: Path | None) -> str | None:
    if token_file is not None:
        return secret_in(token_file, "--token-file")
    return os.environ.get("HPO_TOKEN", "").strip() or None


def _kept_token(home: Path) -> str | None:
    try:
        return (home / "token").read_text().strip()
    except OSError:
        return None
