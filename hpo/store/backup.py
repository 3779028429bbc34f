"""Backups of the database as files of `pg_dump`, also amid a study: a backup is the state of one moment.

Postgres' own programs come with the embedded server's wheel; they read every older version. A backup holds everything
but the files beside the database: checkpoints, and the key of the tokens (`secret` in the data directory).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from ..errors import ConflictError, SetupError
from ..installation import child_environment
from .database import Database
from .migrate import known_revisions
from .server_programs import last_lines, wheel

_REVISION: Final = re.compile(r"^COPY public\.alembic_version .*\n(\w+)$", re.MULTILINE)
_TABLES: Final = text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")


def backup(url: str, file: Path) -> None:
    """Write a backup of the database at `url`; a file that is there by then is whole, and readable by its owner alone.

    Raises:
        SetupError: the database cannot be read, or the file cannot be written.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}.new")
    address, environment = _address(url)
    command = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=60s"]
    try:
        with aside.open("xb") as output:
            aside.chmod(0o600)
            # By its name: into an open file the program writes its table of contents a second time, at the end.
            _run([*command, f"--file={aside.absolute()}", f"--dbname={address}"], environment)
            os.fsync(output.fileno())
        aside.replace(file)
    except OSError as error:
        raise SetupError(f"the backup {file} cannot be written ({error.strerror or error})") from error
    finally:
        aside.unlink(missing_ok=True)


def read_all(url: str) -> None:
    """Read every row of the database at `url`, as a backup does.

    Raises:
        SetupError: a part cannot be read.
    """
    address, environment = _address(url)
    with Path(os.devnull).open("wb") as nothing:
        _run(["pg_dump", "--format=custom", "--compress=none", f"--dbname={address}"], environment, nothing.fileno())


def revision_of(file: Path) -> str:
    """Return the revision of the tables in a backup, after reading the whole file.

    Raises:
        SetupError: it is no backup, is damaged or cut off, or a newer video-hpo made it.
    """
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise SetupError(f"the backup {file} cannot be read ({error.strerror})") from error
    with Path(os.devnull).open("wb") as nothing:
        _run(["pg_restore", "--file=-", str(file)], {}, nothing.fileno())
    written = _run(["pg_restore", "--data-only", "--table=alembic_version", "--file=-", str(file)], {})
    found = _REVISION.search(written)
    if found is None:
        raise SetupError(f"{file} is no backup of video-hpo: it does not say of which version its tables are")
    if found[1] not in known_revisions():
        raise SetupError(f"{file} is of a newer video-hpo (tables {found[1]}); install that version")
    return found[1]


def restore(url: str, file: Path) -> None:
    """Read a backup into the empty database at `url`, all of it or nothing. Its tables keep their version.

    Raises:
        ConflictError: the database holds tables.
        SetupError: it is no backup that this version can read, or the database refuses it.
        StoreUnavailableError: the database cannot be reached.
    """
    revision_of(file)
    database = Database(url, pool_size=1)
    try:
        with database.transaction() as connection:
            if connection.execute(_TABLES).scalar_one():
                raise ConflictError("the database is not empty: restore into a new one, such as that of another --home")
    finally:
        database.close()
    address, environment = _address(url)
    command = ["pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    _run([*command, f"--dbname={address}", str(file)], environment)


def _address(url: str) -> tuple[str, dict[str, str]]:
    """Return an address for Postgres' programs without its password, which goes into the environment."""
    parsed: URL = make_url(url)
    address = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    asked = {name: value for name, value in parsed.query.items() if name != "password"}
    password = parsed.query.get("password", parsed.password)
    if password is None:
        return address, {}
    without = URL.create("postgresql", parsed.username, None, parsed.host, parsed.port, parsed.database, asked)
    return without.render_as_string(hide_password=False), {"PGPASSWORD": str(password)}


def _run(command: Sequence[str], environment: dict[str, str], output: int | None = None) -> str:
    """Return what a program of Postgres printed, unless that goes to the file of number `output`."""
    program, *arguments = command
    done = subprocess.run(
        [str(wheel() / "bin" / program), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if output is None else output,
        stderr=subprocess.PIPE,
        env={**child_environment(), "LC_ALL": "C", **environment},
        check=False,
    )
    if done.returncode != 0:
        raise SetupError(f"{program} failed: {last_lines(done.stderr.decode(errors='replace'))}")
    return "" if done.stdout is None else done.stdout.decode(errors="replace")
