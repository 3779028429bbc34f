"""Postgres goes away and comes back: 503 meanwhile, nothing lost, no restart needed."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hpo.client.http import Client
from hpo.errors import StoreUnavailableError
from hpo.service.upkeep import upkeep
from hpo.store import Database, EmbeddedPostgres, migrate
from tests.postgres import FAST

from .service import claim_body, fence, finished, measured, serving


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, so that the server's socket stays at one address over a restart."""
    made = Path(tempfile.mkdtemp(prefix="hpo-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_an_outage_is_a_503_and_then_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(folder, options=FAST)
    url = server.__enter__()
    migrate(url)
    database = Database(url)
    with serving(database, upkeep_seconds=0.05) as service, service.http() as http:
        service.suggest(service.create())
        lease = http.post("/v1/leases", json=claim_body()).json()
        server.__exit__(None, None, None)
        assert http.get("/v1/health/live").status_code == 204, "a new process would not bring Postgres back"
        calls = [
            http.get("/v1/studies"),
            http.post("/v1/leases", json=claim_body()),
            http.post(f"/v1/trials/{lease['trial_id']}/reports", json=measured(lease, 1, 0.5)),
            http.get("/api/studies"),
        ]
        for answer in calls:
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == "/problems/store-unavailable"
            assert int(answer.headers["retry-after"]) > 0
        tried: list[str] = []
        transaction = Database.transaction

        def counted(self: Database) -> AbstractContextManager[Connection]:
            tried.append(threading.current_thread().name)
            return transaction(self)

        with monkeypatch.context() as patched:
            patched.setattr(Database, "transaction", counted)
            health = http.get("/v1/health")
        assert len([name for name in tried if name != "upkeep"]) == 1, "who has a token does not wait for it twice"
        assert (health.status_code, health.json()["status"], health.json()["database"]) == (
            503,
            "unavailable",
            "unreachable",
        )
        with Client(service.url, service.tokens["admin"]) as client:
            assert client.health()["status"] == "unavailable"
            with pytest.raises(StoreUnavailableError):
                client.studies()
        with EmbeddedPostgres(folder, options=FAST) as again:
            assert again == url
            assert http.get("/v1/health").json()["database"] == "ok"
            path = f"/v1/trials/{lease['trial_id']}"
            assert http.post(f"{path}/reports", json=measured(lease, 1, 0.5)).json() == {"decision": "continue"}
            assert http.post(f"{path}/finish", json=finished(lease, 0.5)).json()["state"] == "completed"
            assert http.post(f"{path}/reports", json=fence(lease)).status_code == 409
        database.close()


class _Flaky:
    """Stands in for a database that fails a few times, then works; says when it was asked."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self.asked_after = threading.Event()

    def transaction(self) -> None:
        """Fail with the next error, then with the last."""
        if len(self.errors) > 1:
            raise self.errors.pop(0)
        self.asked_after.set()
        raise self.errors[0]


def test_upkeep_continues_after_errors_and_logs_an_outage_once(caplog: pytest.LogCaptureFixture) -> None:
    flaky = _Flaky([StoreUnavailableError(), RuntimeError("a bug"), StoreUnavailableError(), StoreUnavailableError()])
    before = set(threading.enumerate())
    with upkeep(flaky, seconds=0.001):  # type: ignore[arg-type] # only `transaction` is used
        assert flaky.asked_after.wait(10)
    assert "upkeep failed" in caplog.text
    assert caplog.text.count("upkeep waits") == 1, "an outage is told once"
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "upkeep"]
