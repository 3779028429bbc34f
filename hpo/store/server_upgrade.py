"""Bring the data of the embedded server from an older major version of Postgres to that of today, by dump and restore.

Beside the data are, by the suffix of their folders: the new data while they are filled (new), the new data when they
are whole (upgraded), and the old data, which are kept (pg16). Whenever a kill comes, either the old data or the whole
new ones are in their place after the next start.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..errors import SetupError
from .server_programs import Programs

log = logging.getLogger(__name__)

_DATABASE: Final = "postgres"
_START: Final = ("start", "--wait", "--timeout=300")


def finish_upgrade(folder: Path) -> None:
    """Put upgraded data in their place, where a kill came just before that."""
    upgraded, data = folder / "data.upgraded", folder / "data"
    if upgraded.exists() and not data.exists():
        upgraded.rename(data)


def upgrade(programs: Programs, made_by: str, make_cluster: Callable[[Path], None]) -> None:
    """Upgrade the data in the folder of `programs` from the major version `made_by`; the old data are kept beside.

    `make_cluster` makes an empty cluster of the new version.

    Raises:
        SetupError: there are no programs of the old version here, or they cannot read the data.
    """
    folder, data = programs.folder, programs.folder / "data"
    old = programs.of_major(made_by)
    if old is None:
        raise SetupError(
            f"the database in {data} was made by Postgres {made_by}, but this is {programs.major}, and the programs of "
            f"{made_by} are not here: install them (postgresql-{made_by}), or set DATABASE_URL to a server that can "
            f"read it"
        )
    log.warning("the database in %s is brought from Postgres %s to %s", data, made_by, programs.major)
    place, unfinished = folder / "upgrade", folder / "data.new"
    for left in (place, unfinished, folder / "data.upgraded"):
        shutil.rmtree(left, ignore_errors=True)
    programs.make_own(place)
    dump = place / "dump"
    # The new version's program reads the old server; it knows what its own restore needs.
    with _running(old, data, place):
        programs.run("pg_dump", "--format=custom", f"--file={dump}", *_where(place))
    make_cluster(unfinished)
    with _running(programs, unfinished, place):
        programs.run("pg_restore", "--single-transaction", "--exit-on-error", *_where(place), str(dump))
    unfinished.rename(folder / "data.upgraded")
    kept = folder / f"data.pg{made_by}"
    shutil.rmtree(kept, ignore_errors=True)
    data.rename(kept)
    finish_upgrade(folder)
    shutil.rmtree(place, ignore_errors=True)
    log.warning("done; the data of Postgres %s are kept in %s until you delete them", made_by, kept)


def _where(sockets: Path) -> list[str]:
    return [f"--host={sockets}", "--username=postgres", f"--dbname={_DATABASE}"]


@contextmanager
def _running(programs: Programs, data: Path, sockets: Path) -> Iterator[None]:
    options = f"-c listen_addresses='' -c unix_socket_directories='{sockets}'"
    programs.run("pg_ctl", *_START, f"--pgdata={data}", f"--log={sockets / 'log'}", f"--options={options}")
    try:
        yield
    finally:
        programs.run("pg_ctl", "stop", "--wait", "--timeout=120", "--mode=fast", f"--pgdata={data}")
