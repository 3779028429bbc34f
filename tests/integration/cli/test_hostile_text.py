"""A worker may call itself anything: no command breaks on it, or hands it to the terminal."""

from __future__ import annotations

import re

import pytest

from ..api.service import Service, claim_body, fence, measured
from .conftest import Command

HOSTILE = "[/boom]\x1b[2J\u202e[red]"
SHOWN = r"[/boom]\x1b[2J\u202e[red]"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def test_no_command_hands_it_on(service: Service, hpo: Command) -> None:
    service.suggest(service.create())
    claim = claim_body(HOSTILE)
    claim["worker"] |= {"host": HOSTILE, "device": HOSTILE}
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim).raise_for_status().json()
        path = f"/v1/trials/{lease['trial_id']}"
        report = {**measured(lease, 1, 0.5), "checkpoint": HOSTILE}
        report["measurements"][0]["metrics"][HOSTILE] = 1.0
        http.post(f"{path}/reports", json=report).raise_for_status()
        size = len(HOSTILE.encode())
        http.post(f"{path}/log", json={**fence(lease), "start": 0, "stop": size, "text": HOSTILE}).raise_for_status()
        crash = {**fence(lease), "reason": "crashed", "fault": "storage", "message": HOSTILE}
        assert hpo(service, "workers").out.count(SHOWN) == 3
        http.post(f"{path}/release", json=crash).raise_for_status()
    shows = {
        ("workers",): True,
        ("logs", "demo"): True,
        ("logs", "demo", "0"): True,
        ("trial", "show", "demo", "0"): True,
        ("trials", "demo"): False,
        ("study", "show", "demo"): False,
        ("study", "list"): False,
    }
    for command, is_shown in shows.items():
        said = hpo(service, *command)
        assert (said.code, STEERING.search(said.out + said.err)) == (0, None), command
        assert (SHOWN in said.out) is is_shown, command
    for command in shows:
        said = hpo(service, *command[:2], *command[2:], "--json") if command[0] != "logs" else said
        assert STEERING.search(said.out) is None, command


@pytest.mark.parametrize("command", [("best",), ("study", "show"), ("trials",)])
def test_an_error_with_it_is_printed_as_it_is(service: Service, hpo: Command, command: tuple[str, ...]) -> None:
    said = hpo(service, *command, HOSTILE)
    assert said.code != 0
    assert STEERING.search(said.err) is None
