"""The API away: training goes on, and what was measured meanwhile arrives in order."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpo.store import Database, studies, tokens
from tests.unit.workers.tiny import without_timing
from workers.checkpoints.folder import TrialFolder, run_of
from workers.retrain import TrainingResult

from .bench import EPOCHS, GOOD, Bench, running, wait_until

KEY = "a key for tests, at least 16 bytes"
_SERVE = """
import sys
import uvicorn
from api.app import create_app
from api.config import ApiConfig
from hpo.store import Database
url, port, key = sys.argv[1:]
config = ApiConfig(key=key.encode(), upkeep_seconds=0.2, fallback_seconds=3600.0, dashboard=False)
uvicorn.run(create_app(Database(url), config), host="127.0.0.1", port=int(port), log_level="warning", ws="none")
"""


class ApiProcess:
    """An API in a process of its own, on a port that stays the same, so that it can be killed and come back."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it; returns when it answers."""
        command = [sys.executable, "-c", _SERVE, self._database_url, str(self.port), KEY]
        self._process = subprocess.Popen(command)
        wait_until(self._listens, "the API")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def api(database_url: str) -> Iterator[ApiProcess]:
    started = ApiProcess(database_url)
    started.start()
    yield started
    started.kill()


@pytest.fixture
def bench(api: ApiProcess, database: Database, tmp_path: Path, videos: Path) -> Iterator[Bench]:
    with database.transaction() as connection:
        token = tokens.create(connection, name="test", scopes=["worker"], key=KEY.encode())
    url = f"http://127.0.0.1:{api.port}"
    with running(Bench(database=database, url=url, token=token, home=tmp_path / "home", videos=videos)) as made:
        yield made


def _on_disk(bench: Bench, study: int) -> Callable[[], int]:
    with bench.database.transaction() as connection:
        uuid = studies.get_by_id(connection, study).uuid
    trial = bench.trial(study).id
    folder = TrialFolder.of(bench.home / "checkpoints", study=uuid, trial_id=trial, attempt=1, run=run_of(uuid))
    return lambda: max((point.epoch for point in folder.resume_points()), default=0)


def test_training_continues_without_the_api_and_reports_arrive_in_order(
    bench: Bench, api: ApiProcess, reference: TrainingResult
) -> None:
    study = bench.study("outage", [GOOD])
    worker = bench.worker("--max-trials", "1")
    wait_until(bench.reached(study, 2))
    api.kill()
    known, on_disk = bench.trial(study).epochs_done, _on_disk(bench, study)
    wait_until(lambda: on_disk() >= known + 3, "epochs without the API")
    assert bench.trial(study).epochs_done == known
    api.start()
    assert worker.wait() == 0, worker.said
    trial = bench.trial(study)
    assert (trial.state, trial.attempt, trial.retries) == ("completed", 1, 0)
    assert without_timing(trial.metrics) == without_timing(reference.metrics)
    assert [row.step for row in bench.measurements(trial.id)] == list(range(1, EPOCHS + 1))
    assert "reports are sent later" in worker.said
    assert "the API answers again" in worker.said


def test_what_a_worker_could_not_report_before_it_died_is_reported_by_the_next(bench: Bench, api: ApiProcess) -> None:
    study = bench.study("both", [GOOD])
    first = bench.worker("--max-trials", "1")
    wait_until(bench.reached(study, 2))
    api.kill()
    known, on_disk = bench.trial(study).epochs_done, _on_disk(bench, study)
    wait_until(lambda: on_disk() >= known + 2)
    first.process.kill()
    first.wait()
    reached = on_disk()
    api.start()
    bench.expire_leases()
    second = bench.worker("--max-trials", "1")
    assert second.wait() == 0, second.said
    trial = bench.trial(study)
    assert trial.state == "completed"
    assert [row.step for row in bench.measurements(trial.id)] == list(range(1, EPOCHS + 1))
    assert f"resumes after epoch {reached}, batch 0" in second.said


def test_a_worker_that_starts_before_the_api_waits_for_it(bench: Bench, api: ApiProcess) -> None:
    study = bench.study("early", [{**GOOD, "model.beta_inv": 3}])
    api.kill()
    worker = bench.worker("--max-trials", "1")
    wait_until(lambda: "cannot be reached" in worker.said)
    api.start()
    assert worker.wait() == 0, worker.said
    assert bench.trial(study).failure_kind == "invalid"
