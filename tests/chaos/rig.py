"""A whole service in small: Postgres, API, optimizer, a bad network and workers, and what kills them one by one."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from sqlalchemy import TextClause, text

from hpo.errors import StoreUnavailableError
from hpo.spec import parse_spec
from hpo.store import Database, EmbeddedPostgres, migrate, studies, tokens

from . import history, processes
from .processes import EPOCHS, KEY, LEASE_SECONDS, Mutant
from .proxy import Network, network

KINDS = ("video", "custom", "video", "custom", "video")
"""The kind of task of each worker, in the order of their numbers."""
PATIENCE_SECONDS = 120.0
"""After the last kill no longer than this passes before another trial ends, until all have. How fast is not judged."""
_ENDLESS = 100_000
_ENDED = text("SELECT count(*) FROM trial WHERE finished_at IS NOT NULL")
_FUNCTIONS = text(
    "SELECT count(*) FROM trial JOIN study ON study.id = trial.study_id WHERE task_kind = 'custom' "
    "AND trial.state = 'completed'"
)
_OPEN = text("SELECT count(*) FROM study WHERE finished_at IS NULL")
# No trial begins any more but those that are there: the study ends with the last of them.
_LAST_ORDERS = text("UPDATE study SET spec = jsonb_set(spec, '{budget,trials}', to_jsonb(GREATEST(live_trials, 1)))")
_LEFT = text("""
SELECT state || CASE WHEN held THEN ' (held)' ELSE '' END AS state, count(*) AS trials, min(number) AS first
FROM trial WHERE finished_at IS NULL GROUP BY 1 ORDER BY 1
""")
_SPEC = {
    "name": "chaos",
    "objectives": [{"metric": "val_top1"}],
    "task": {"dataset": {"root": "/data"}, "epochs": EPOCHS},
    "space": {"lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True}},
    "optimizer": {"name": "random"},
    "retry": {"attempts": 100},
}
_FUNCTION = {"kind": "custom", "metrics": {"val_top1": "maximize"}, "epochs": EPOCHS}
_SPECS = (_SPEC, {**_SPEC, "name": "function", "task": _FUNCTION})
"""A study of videos, and one of a person's own function. Each worker takes trials of one of them alone."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What happened, and what was broken."""

    kills: Counter[str]
    messages: Counter[str]
    trials: int
    functions: int
    """Trials of a person's own function that have a result."""
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.trials} trials, {self.functions} of a function; kills {dict(self.kills)}"
        return f"{said}; messages {dict(self.messages)}; {self.violations[:5]}"


class Rig:
    """The processes; every one that dies is started again."""

    def __init__(self, folder: Path, url: str, port: int, mutant: Mutant | None, seed: int) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([processes.__name__])
        self._folder, self._url, self._port, self._mutant = folder, url, port, mutant
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.database = Database(url, pool_size=2)
        self.kills: Counter[str] = Counter()
        self.network: Network | None = None
        self.token = ""
        self._made = 0
        self.running: dict[str, ForkServerProcess] = {}
        self._stopped: dict[str, float] = {}

    def start(self, name: str) -> None:
        """Start the process of a name."""
        self._made += 1
        if name == "api":
            process = self._context.Process(target=processes.serve, args=(self._url, self._port, self._mutant))
        elif name == "optimizer":
            process = self._context.Process(target=processes.optimize, args=(self._url,))
        else:
            assert self.network is not None
            address = f"http://127.0.0.1:{self.network.server_address[1]}"
            log = self._folder / f"{name}-{self._made:04d}.log"
            kind = KINDS[int(name.rpartition("-")[2])]
            process = self._context.Process(target=processes.work, args=(address, self.token, log, self._made, kind))
        process.start()
        self.running[name] = process

    def kill(self, name: str) -> None:
        """Kill a process and start it again."""
        process = self.running[name]
        self._stopped.pop(name, None)
        process.kill()
        process.join()
        self.kills[name.partition("-")[0]] += 1
        self.start(name)

    def freeze(self, name: str) -> None:
        """Stop a worker for longer than its lease: it wakes up as a zombie."""
        if name not in self._stopped:
            os.kill(self.running[name].pid or 0, signal.SIGSTOP)
            self._stopped[name] = time.monotonic() + self.random.uniform(2.0, 3.5) * LEASE_SECONDS
            self.kills["zombie"] += 1

    def wake(self, *, everybody: bool = False) -> None:
        """Let those go on whose time is over."""
        for name, until in list(self._stopped.items()):
            if everybody or time.monotonic() >= until:
                del self._stopped[name]
                os.kill(self.running[name].pid or 0, signal.SIGCONT)

    def crash_postgres(self, data: Path) -> None:
        """Kill the database; it is started again by who runs it."""
        with suppress(OSError, ValueError, IndexError):
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            self.kills["postgres"] += 1

    def end(self) -> None:
        """End every process."""
        self.wake(everybody=True)
        for process in self.running.values():
            process.kill()
            process.join()
        self.database.close()

    def insist(self, ask: Callable[[Database], int]) -> int:
        """Return an answer of the database, through its outages."""
        while True:
            try:
                return ask(self.database)
            except StoreUnavailableError:
                time.sleep(0.1)

    def count(self, query: TextClause) -> int:
        """Return the number that a query asks for."""

        def ask(database: Database) -> int:
            with database.transaction() as connection:
                return int(connection.execute(query).scalar_one())

        return self.insist(ask)

    def end_the_study(self) -> list[str]:
        """Let all trials end in peace; return a sentence if they do not."""

        def ask(database: Database) -> int:
            with database.transaction() as connection:
                return connection.execute(_LAST_ORDERS).rowcount

        self.insist(ask)
        ended, since = 0, time.monotonic()
        while self.count(_OPEN):
            now_ended, now = self.count(_ENDED), time.monotonic()
            if now_ended > ended:
                ended, since = now_ended, now
            elif now - since > PATIENCE_SECONDS:
                with self.database.transaction() as connection:
                    left = [f"{row.trials} {row.state}, the first {row.first}" for row in connection.execute(_LEFT)]
                return [f"no trial has ended for {PATIENCE_SECONDS:.0f} s after the last kill; left are {left}"]
            time.sleep(0.2)
        return []


def run(*, seconds: float, seed: int, mutant: Mutant | None = None, pause: float = 0.4) -> Report:
    """Let chaos reign for some seconds, wait until every trial has ended, and return what was broken."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        # What is committed is written, since Postgres is killed; a failure of power is not part of this.
        postgres = EmbeddedPostgres(folder / "postgres", options={"fsync": "off", "max_connections": "100"})
        url = stack.enter_context(postgres)
        migrate(url)
        port = _free_port()
        rig = Rig(folder, url, port, mutant, seed)
        stack.callback(rig.end)
        with rig.database.transaction() as connection:
            for spec in _SPECS:
                studies.create(connection, parse_spec({**spec, "budget": {"trials": _ENDLESS}}), actor="chaos")
            rig.token = tokens.create(connection, name="chaos", scopes=["worker"], key=KEY)
        rig.network = stack.enter_context(network(port, seed))
        workers = [f"worker-{number}" for number in range(len(KINDS))]
        for name in ("api", "optimizer", *workers):
            rig.start(name)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            _trouble(rig, workers, folder / "postgres" / "data")
            time.sleep(rig.random.uniform(0.2, 1.8) * pause)
        rig.network.calm.set()
        rig.wake(everybody=True)
        violations = rig.end_the_study()
        rig.end()
        with Database(url).transaction() as connection:
            trials = int(connection.execute(text("SELECT count(*) FROM trial")).scalar_one())
            functions = int(connection.execute(_FUNCTIONS).scalar_one())
            violations += history.violations(connection, history.read(folder))
        return Report(
            kills=rig.kills, messages=rig.network.met, trials=trials, functions=functions, violations=violations
        )


def _trouble(rig: Rig, workers: list[str], data: Path) -> None:
    rig.wake()
    drawn = rig.random.random()
    if drawn < 0.3:
        rig.kill(rig.random.choice(workers))
    elif drawn < 0.75:
        rig.freeze(rig.random.choice(workers))
    elif drawn < 0.87:
        rig.kill("api")
    elif drawn < 0.94:
        rig.kill("optimizer")
    else:
        rig.crash_postgres(data)


@contextmanager
def _folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hpo-chaos-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
