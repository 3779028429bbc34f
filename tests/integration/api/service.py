"""A real server on loopback for tests: uvicorn in a thread, over a real Postgres."""

from __future__ import annotations

import copy
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import httpx
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine

from api.app import create_app
from api.config import ApiConfig
from api.rate import RateLimiter
from api.state import ApiState, FileRemoval, SpecPreview
from hpo.cli.listening import Listening
from hpo.service.creation import SpecCheck
from hpo.service.notices import ClipCount
from hpo.spec import Fragments, parse_spec
from hpo.store import Database, lifecycle, studies, tokens
from hpo.trial import Suggestion, TrialRecord
from tests.postgres import empty, fresh_database

KEY = b"a key for tests, at least 16 bytes"
TRUST = ssl.create_default_context()  # made once: it takes longer than most of the requests here
SPEC: dict[str, Any] = {
    "name": "demo",
    "objectives": [{"metric": "val_top1", "direction": "maximize"}],
    "task": {"dataset": {"name": "ucf101", "root": "/data/ucf101"}, "epochs": 10, "base": {"batch_size": 4}},
    "space": {
        "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8},
    },
    "budget": {"trials": 20},
}


def spec(**changes: Any) -> dict[str, Any]:
    """Return the spec with top-level fields replaced."""
    return {**copy.deepcopy(SPEC), **changes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running server, and how to reach into its store."""

    url: str
    database: Database
    config: ApiConfig
    application: FastAPI = field(repr=False)
    tokens: dict[str, str] = field(repr=False)

    def emptied(self) -> Service:
        """Return the same server over a store without anything but new tokens, as if nobody had guessed at any."""
        state: ApiState = self.application.state.hpo
        guesses = RateLimiter(attempts=state.logins.attempts, seconds=state.logins.seconds)
        self.application.state.hpo = replace(state, logins=guesses)
        with self.database.transaction() as connection:
            empty(connection)
        return replace(self, tokens=_make_tokens(self.database))

    def http(self, scope: str | None = "admin") -> httpx.Client:
        """Return a client that holds the token of a scope (None: no token)."""
        headers = {} if scope is None else {"Authorization": f"Bearer {self.tokens[scope]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=TRUST)

    def create(self, **changes: Any) -> int:
        """Return the id of a new study."""
        with self.database.transaction() as connection:
            return studies.create(connection, parse_spec(spec(**changes)), actor="test").id

    def suggest(self, study_id: int, count: int = 1, *, points: Sequence[dict[str, Any]] = ()) -> list[TrialRecord]:
        """Return new suggestions, added as an optimizer would add them; it keeps its lease."""
        found = list(points) or [{"lr": 0.01 * (i + 1), "dropout": 0.05 * i} for i in range(count)]
        with self.database.transaction() as connection:
            generation = studies.acquire_generator(connection, study_id, "optimizer", 600.0)
            assert generation is not None
            proposals = [Suggestion(params=params, generator="sobol") for params in found]
            return lifecycle.suggest(connection, study_id, proposals, owner="optimizer", generation=generation)

    def complete(self, study_id: int, count: int) -> None:
        """Add trials and complete them."""
        self.suggest(study_id, count)
        with self.http("worker") as http:
            for place in range(count):
                lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
                end = finished(lease, 0.1 * place)
                http.post(f"/v1/trials/{lease['trial_id']}/finish", json=end).raise_for_status()


def claim_body(name: str = "w1", **changes: Any) -> dict[str, Any]:
    """Return the body of a claim by a CPU worker."""
    worker = {"name": name, "host": "here", "pid": 1, "device": "cpu", "memory_bytes": 2**33}
    return {"worker": worker, "lease_id": str(uuid4()), **changes}


def fence(lease: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that every call about a claimed trial carries."""
    return {"attempt": lease["attempt"], "lease_id": lease["lease_id"]}


def measured(lease: dict[str, Any], step: int, value: float, **more: float) -> dict[str, Any]:
    """Return the body of a report of one epoch."""
    metrics = {"val_top1": value, "val_loss": 1.0 - value, **more}
    return {
        **fence(lease),
        "measurements": [{"step": step, "metrics": metrics, "wall_seconds": 1.0, "gpu_seconds": 1.0}],
    }


def finished(lease: dict[str, Any], value: float, **more: Any) -> dict[str, Any]:
    """Return the body that ends a trial as completed."""
    return {**fence(lease), "outcome": "completed", "metrics": {"val_top1": value}, **more}


@contextmanager
def serving(
    database: Database,
    *,
    check_spec: SpecCheck | None = None,
    fragments: Fragments | None = None,
    count_clips: ClipCount | None = None,
    remove_files: FileRemoval | None = None,
    listening: Listening | None = None,
    preview: SpecPreview | None = None,
    list_models: Callable[[], Sequence[str]] | None = None,
    port: int = 0,
    **changes: Any,
) -> Iterator[Service]:
    """Run the application on a port of loopback (a free one by default) while the block does, as `hpo serve` does."""
    listening = listening or Listening()
    config = ApiConfig(**{"key": KEY, "upkeep_seconds": 3600.0, "fallback_seconds": 3600.0, **changes})
    # Naming the protocol is what makes asyncio set TCP_NODELAY; without it every answer waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    # Connections made from here on wait until the server takes them.
    listener.listen(128)
    application = create_app(
        database,
        config,
        check_spec=check_spec,
        fragments=fragments,
        count_clips=count_clips,
        remove_files=remove_files,
        preview=preview,
        list_models=list_models,
    )
    options: dict[str, Any] = {"access_log": False, "timeout_graceful_shutdown": 2, "ws": "none", "log_config": None}
    server = uvicorn.Server(uvicorn.Config(application, **options, **listening.uvicorn_options()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        url = listening.url(listener.getsockname()[1])
        made = _make_tokens(database)
        yield Service(url=url, database=database, config=config, application=application, tokens=made)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


def _make_tokens(database: Database) -> dict[str, str]:
    with database.transaction() as connection:
        return {
            scope: tokens.create(connection, name=f"{scope} of the test", scopes=[scope], key=KEY)
            for scope in ("admin", "worker", "read")
        }


@contextmanager
def serving_alone(postgres_admin: Engine, template: str, **how: Any) -> Iterator[Service]:
    """Serve a database of its own, for the tests of a module or a package together."""
    with fresh_database(postgres_admin, template=template) as url:
        database = Database(url)
        try:
            with serving(database, **how) as running:
                yield running
        finally:
            database.close()
