"""`hpo logs STUDY TRIAL`: the log of an attempt, once and while it grows."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from hpo.store import Database, studies
from hpo.trial import StudyState

from ..api.service import Service, claim_body, fence, serving
from .conftest import Command


class Worker:
    """Holds a lease, and sends what it prints."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._at = 0
        service.suggest(service.create())
        self.claim()

    def claim(self) -> None:
        """Claim the trial, perhaps again."""
        self._at = 0
        self._lease = self._post("/v1/leases", claim_body())

    def prints(self, line: str) -> None:
        """Send a line."""
        start, self._at = self._at, self._at + len(line)
        self._post(self._path("log"), {**fence(self._lease), "start": start, "stop": self._at, "text": line})

    def fails(self) -> None:
        """Hand in a failure."""
        end = {**fence(self._lease), "outcome": "failed", "failure_kind": "error", "failure_message": "no"}
        self._post(self._path("finish"), end)

    def drains(self) -> None:
        """Give the trial back."""
        self._post(self._path("release"), {**fence(self._lease), "reason": "drained"})

    def _path(self, what: str) -> str:
        return f"/v1/trials/{self._lease['trial_id']}/{what}"

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        with self._service.http("worker") as http:
            answer = http.post(path, json=body).raise_for_status()
            return answer.json() if answer.content else None


def test_the_log_of_an_attempt_that_has_ended_is_printed_as_it_is(service: Service, hpo: Command) -> None:
    worker = Worker(service)
    waiting = hpo(service, "logs", "demo", "0", scope="read")
    worker.prints("loss [bold]:smile:\n")
    worker.drains()
    worker.claim()
    worker.prints("the second\n")
    worker.fails()
    first, last = hpo(service, "logs", "demo", "0", "--attempt", "1"), hpo(service, "logs", "demo", "0")
    assert (waiting.code, waiting.out, "has sent nothing yet" in waiting.err) == (0, "", True)
    assert (first.out, last.out) == ("loss [bold]:smile:\n", "the second\n")
    assert first.err == "trial 0, attempt 1, on w1\nthe attempt has ended: drained\n"
    assert last.err == "trial 0, attempt 2, on w1\nthe attempt has ended: failed\n"
    missing = hpo(service, "logs", "demo", "0", "--attempt", "3")
    assert (missing.code, missing.err) == (3, "error: trial 0 has no attempt 3: it has 2\n")


def test_a_log_is_followed_until_its_attempt_ends(
    service: Service, hpo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(service)
    worker.prints("one\n")
    meanwhile = [lambda: worker.prints("two\n"), lambda: None, lambda: worker.prints("three\n"), worker.fails]
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        meanwhile.pop(0)()

    monkeypatch.setattr("hpo.cli.logs.time", SimpleNamespace(sleep=sleep))  # of this module alone
    said = hpo(service, "logs", "demo", "0", "--follow")
    assert (said.code, said.out, pauses) == (0, "one\ntwo\nthree\n", [5.0] * 4)
    assert "the attempt has ended: failed" in said.err


def test_an_attempt_needs_a_trial(service: Service, hpo: Command) -> None:
    said = hpo(service, "logs", "demo", "--attempt", "1")
    assert (said.code, "give its number after the name of the study" in said.err) == (1, True)


def test_what_was_measured_is_printed_for_a_person() -> None:
    from hpo.cli.logs import event_line

    event = {
        "at": "2026-11-29T07:06:26.123456+00:00",
        "kind": "trial.measured",
        "actor": "w1",
        "trial_number": 3,
        "detail": {"step": 2, "metrics": {"val_top1": 0.16666666666666666, "val_clips": 30.0}, "message": None},
    }
    assert event_line(event) == "2026-11-29 07:06:26  trial 3 finished epoch 2: val_top1 0.1667, val_clips 30"


class Restarts:
    """A service that goes away while a log is followed, and comes back at its address."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running = ExitStack()
        # Bound for as long as this object lives, so that no other process is given the port while nothing listens.
        self._port = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self.start()

    def close(self) -> None:
        """Free the port."""
        self.stop()
        self._port.close()

    def stop(self) -> None:
        """End the service."""
        self._running.close()

    def start(self) -> None:
        """Start it, perhaps again."""
        port = int(self._port.getsockname()[1])
        self.service = self._running.enter_context(serving(self._database, port=port))

    def more(self) -> None:
        """Have something happen."""
        with self._database.transaction() as connection:
            studies.set_state(connection, "demo", StudyState.PAUSED, actor="ann")

    def end(self) -> None:
        """End the command as a person does."""
        self.stop()
        raise KeyboardInterrupt


@pytest.fixture
def restarts(database: Database) -> Iterator[Restarts]:
    """Such a service."""
    made = Restarts(database)
    yield made
    made.close()


class Clock:
    """The module `time` for `hpo logs`: nobody waits."""

    def __init__(self, on_sleep: Callable[[float], None]) -> None:
        self._on_sleep = on_sleep
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds
        self._on_sleep(seconds)

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.seconds


def test_a_followed_log_survives_a_restart_of_the_service(
    restarts: Restarts, hpo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = restarts.service
    first.create()
    happens = iter([restarts.stop, restarts.more, lambda: None, restarts.start, lambda: None, restarts.end])
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        next(happens)()

    monkeypatch.setattr("hpo.cli.logs.time", Clock(sleep))  # of this module alone
    said = hpo(first, "logs", "demo", "--follow")
    assert (said.code, pauses) == (130, [1.0, 1.0, 2.0, 4.0, 1.0, 1.0])
    assert [line[21:] for line in said.out.splitlines()] == [
        "the study was created by test",
        "the study was paused by ann",
    ]
    assert said.err.count("asking again for 10 min") == 1
    assert said.err.endswith("the service is back\n")


@pytest.mark.parametrize("timeout_seconds", [0.0, 30.0])
def test_a_followed_log_ends_when_the_service_stays_away(
    restarts: Restarts, hpo: Command, monkeypatch: pytest.MonkeyPatch, timeout_seconds: float
) -> None:
    restarts.service.create()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        if not pauses:
            restarts.stop()
        else:
            clock.seconds += timeout_seconds
        pauses.append(seconds)

    clock = Clock(sleep)
    monkeypatch.setattr("hpo.cli.logs.time", clock)
    said = hpo(restarts.service, "logs", "demo", "--follow")
    assert (said.code, max(pauses)) == (6, 15.0)
    assert 600 <= clock.seconds - pauses[0] < 615 + timeout_seconds


def test_an_event_is_a_line_of_json_for_a_program(past_service: Service, hpo: Command) -> None:
    events = [json.loads(line) for line in hpo(past_service, "logs", "demo", "--json").out.splitlines()]
    assert events[0]["kind"] == "study.created"
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    assert hpo(past_service, "logs", "demo", "0", "--json").code == 1
