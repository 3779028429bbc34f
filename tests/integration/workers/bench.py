"""What the worker's tests act on: a study in the store, worker processes, and a look at what became of the trials."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import Row, text

from hpo.protocol import Confusion
from hpo.spec import parse_spec
from hpo.store import Database, confusions, lifecycle, logs, studies, trials
from hpo.trial import StudyState, Suggestion
from tests.integration.api.service import Service
from tests.unit.workers.tiny import BASE

DEADLINE_SECONDS = 120.0
EPOCHS = 16
GOOD = {"lr": 0.02, "weight_decay": 1e-4, "model.beta_inv": 4}


def wait_until(holds: Callable[[], Any], what: str = "", *, seconds: float = DEADLINE_SECONDS) -> Any:
    """Return the first true answer of `holds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"did not come about within {seconds:.0f} s: {what or holds}")


@dataclass(slots=True)
class WorkerProcess:
    """An `hpo-worker` on the CPU with one thread."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return self.log.read_text()

    def children(self) -> list[int]:
        """Return its training processes: the one at work first, then the one on standby."""
        pid = self.process.pid
        found: list[int] = []
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text().split()]
        return sorted(found)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        return self.process.wait(DEADLINE_SECONDS)


@dataclass(slots=True, kw_only=True)
class Bench:
    """One store, one API, one data directory, any number of workers."""

    database: Database
    url: str
    token: str = field(repr=False)
    home: Path
    videos: Path
    _workers: list[WorkerProcess] = field(default_factory=list)

    def study(self, name: str, points: Sequence[dict[str, Any]], **changes: Any) -> int:
        """Return the id of a new study with these suggestions and no others."""
        task = {
            "dataset": {"root": str(self.videos), "short_side": 32},
            "epochs": EPOCHS,
            "base": self.base(),
            **changes.pop("task", {}),
        }
        spec = parse_spec(
            {
                "name": name,
                "objectives": [{"metric": "val_top1"}],
                "task": task,
                "space": {
                    "lr": {"type": "float", "low": 1e-4, "high": 100.0, "log": True},
                    "weight_decay": {"type": "float", "low": 0.0, "high": 10.0},
                    "model.beta_inv": {"type": "categorical", "choices": [3, 4]},
                },
                "budget": {"trials": len(points)},
                **changes,
            }
        )
        with self.database.transaction() as connection:
            study = studies.create(connection, spec, actor="test")
            generation = studies.acquire_generator(connection, study.id, "test", 3600.0)
            assert generation is not None
            proposals = [Suggestion(params=point, generator="test") for point in points]
            lifecycle.suggest(connection, study.id, proposals, owner="test", generation=generation)
        return study.id

    @staticmethod
    def base(**changes: Any) -> dict[str, Any]:
        """Return the settings of a study that its space does not vary."""
        return {**{key: value for key, value in BASE.items() if key not in GOOD}, "seed": 11, **changes}

    def set_state(self, name: str, state: StudyState) -> None:
        """Pause, resume or stop a study."""
        with self.database.transaction() as connection:
            studies.set_state(connection, name, state, actor="test")

    def trials(self, study_id: int) -> Sequence[Row[Any]]:
        """Return the rows of a study's trials."""
        return self._rows("SELECT * FROM trial WHERE study_id = :id ORDER BY number", study_id)

    def trial(self, study_id: int, number: int = 0) -> Row[Any]:
        """Return the row of one trial, by its number in the study."""
        return self.trials(study_id)[number]

    def measurements(self, trial_id: int) -> Sequence[Row[Any]]:
        """Return all measurements of a trial, in the order in which they were stored."""
        return self._rows("SELECT * FROM measurement WHERE trial_id = :id ORDER BY created_at, step", trial_id)

    def log(self, trial_id: int, *, attempt: int | None = None) -> logs.AttemptLog:
        """Return what the API has of the log of a trial's attempt, the last one if none is given."""
        with self.database.transaction() as connection:
            return logs.read(connection, trials.record(connection, trial_id), attempt=attempt)

    def confusion(self, trial: Row[Any]) -> Confusion:
        """Return the newest confusion matrix that the API has of a trial."""
        with self.database.transaction() as connection:
            return confusions.read(connection, trials.record(connection, trial.id))

    def reached(self, study_id: int, epoch: int) -> Callable[[], bool]:
        """Return a check whether the first trial has reported at least `epoch` epochs."""
        return lambda: self.trial(study_id).epochs_done >= epoch

    def is_in(self, study_id: int, *states: str) -> Callable[[], bool]:
        """Return a check whether the first trial is in one of these states."""
        return lambda: self.trial(study_id).state in states

    def sql(self, statement: str, **values: Any) -> None:
        """Change the store behind everybody's back."""
        with self.database.transaction() as connection:
            connection.execute(text(statement), values)

    def expire_leases(self) -> None:
        """Let the time of all leases be over, and that of all backoffs with it."""
        self.sql("UPDATE trial SET lease_expires_at = clock_timestamp() - interval '1 s' WHERE state = 'running'")
        wait_until(lambda: not self._rows("SELECT id FROM trial WHERE state = 'running' AND id > :id", 0), "reaping")
        self.skip_backoff()

    def skip_backoff(self) -> None:
        """Let retries be claimed now."""
        self.sql("UPDATE trial SET not_before = NULL")

    def worker(
        self,
        *options: str,
        home: Path | None = None,
        url: str | None = None,
        device: Sequence[str] = ("--cpu",),
        cwd: Path | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> WorkerProcess:
        """Return a worker that is started, in the folder `cwd` and with further variables in its environment."""
        folder = home or self.home
        for place in (folder, self.home):
            place.mkdir(parents=True, exist_ok=True)
        log = self.home / f"worker-{len(self._workers)}.log"
        arguments = [*device, "--threads", "1", "--url", url or self.url, *options]
        environment = {**os.environ, "HPO_HOME": str(folder), "HPO_TOKEN": self.token, **variables}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("hpo-worker")), *arguments],
                env=environment,
                cwd=cwd,
                stdout=output,
                stderr=output,
            )
        self._workers.append(WorkerProcess(process, log))
        return self._workers[-1]

    def stop_workers(self) -> None:
        """End every worker that still runs."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()

    def _rows(self, query: str, id_: int) -> Sequence[Row[Any]]:
        with self.database.transaction() as connection:
            return connection.execute(text(query), {"id": id_}).all()


def bench_in(folder: Path, service: Service, videos: Path | None = None) -> Bench:
    """Return a bench with its data directory in `folder`; functions need no videos."""
    return Bench(
        database=service.database,
        url=service.url,
        token=service.tokens["worker"],
        home=folder / "home",
        videos=folder if videos is None else videos,
    )


@contextmanager
def running(bench: Bench) -> Iterator[Bench]:
    """Yield the bench and clear it afterwards."""
    try:
        yield bench
    finally:
        bench.stop_workers()
