"""A worker may call itself anything: no command breaks on it, or hands it to the terminal."""

from __future__ import annotations

import csv
import io
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


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", " =1", "a\n=1\x1b[2J", "\r=1"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_table_for_a_spreadsheet_holds_no_formula_of_a_worker(service: Service, name: str) -> None:
    study = service.create()
    service.suggest(study)
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body(name)).raise_for_status().json()
        body = measured(lease, 1, 0.5)
        body["measurements"][0]["metrics"][name] = -1.5
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=body).raise_for_status()
        answer = http.get(f"/csv/{study}").raise_for_status()
    assert len(answer.content) == int(answer.headers["content-length"])
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    cells = [cell for row in rows for cell in row]
    assert rows[0][:3] == ["Number", "State", "val_top1"]
    assert "-1.5" in cells
    assert not [cell for cell in cells if STEERING.search(cell)]
    assert not [cell for cell in cells if re.match(r"\s*[=+@\t-]", cell) and cell != "-1.5"]


@pytest.mark.parametrize("command", [("best",), ("study", "show"), ("trials",)])
def test_an_error_with_it_is_printed_as_it_is(service: Service, hpo: Command, command: tuple[str, ...]) -> None:
    said = hpo(service, *command, HOSTILE)
    assert said.code != 0
    assert STEERING.search(said.err) is None
