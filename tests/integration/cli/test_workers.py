"""`hpo workers`: who trains, who waits, who gets no trials and why, and how that is ended."""

from __future__ import annotations

from typing import Any

from ..api.service import Service, claim_body, fence
from ..store.world import run
from .conftest import Command


def _fault(service: Service, message: str, fault: str = "storage", name: str = "sick") -> None:
    """Let a worker claim a trial and give it back because of a fault."""
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body(name)).raise_for_status().json()
        end = {**fence(lease), "reason": "crashed", "fault": fault, "message": message}
        http.post(f"/v1/trials/{lease['trial_id']}/release", json=end).raise_for_status()


def _row(hpo: Command, service: Service, name: str) -> str:
    (row,) = [line for line in hpo(service, "workers").out.splitlines() if name in line]
    return row


def test_a_quarantine_is_shown_with_its_reason_and_ended_by_a_person(service: Service, hpo: Command) -> None:
    service.suggest(service.create(), 4)
    for message in ("the first", "the disk of the cache is full"):
        _fault(service, message)
    row = _row(hpo, service, "sick")
    assert "in quarantine until " in row
    assert "2 faults in a row, the last: storage (the disk of the cache is full)" in row
    run(service.database, "UPDATE worker SET quarantined_until = clock_timestamp()")
    with service.http("worker") as http:
        http.post("/v1/leases", json=claim_body("sick")).raise_for_status().json()
    assert "in quarantine, and trains one trial to show that it is well: 2 faults" in _row(hpo, service, "sick")
    said = hpo(service, "workers", "release", "sick")
    assert (said.code, said.out) == (0, "worker sick may have trials again\n")
    assert "in quarantine" not in _row(hpo, service, "sick")
    unknown = hpo(service, "workers", "release", "nobody")
    assert (unknown.code, "there is no worker 'nobody'" in unknown.err) == (3, True)


def test_names_and_messages_are_shown_as_they_are(service: Service, hpo: Command) -> None:
    name = service.create()
    service.suggest(name, 4)
    for _ in range(2):
        _fault(service, "[/dev/shm] is [red]full[/] :warning:", name="sick[/mnt]")
    assert "([/dev/shm] is [red]full[/] :warning:)" in _row(hpo, service, "sick[/mnt]")


def test_a_worker_without_the_files_of_a_study_is_shown_with_what_is_missing(service: Service, hpo: Command) -> None:
    service.suggest(service.create(), 2)
    with service.http("worker") as http:
        http.post("/v1/leases", json=claim_body("well")).raise_for_status()
    _fault(service, "there is no folder /data; mount it\nmore", "files")
    row = _row(hpo, service, "sick")
    assert "waits; nothing of demo until " in row
    assert "UTC, whose files it lacks (there is no folder /data; mount it)" in row
    assert hpo(service, "workers", "release", "sick").code == 0
    assert "lacks" not in _row(hpo, service, "sick")


def test_what_a_worker_does_is_shown(service: Service, hpo: Command) -> None:
    service.suggest(service.create(), 1)
    with service.http("worker") as http:
        lease = http.post("/v1/leases", json=claim_body("busy")).raise_for_status().json()
        http.post("/v1/leases", json=claim_body("idle")).raise_for_status()
        assert "trains trial 0 of demo " in _row(hpo, service, "busy")
        progress = {"stage": "preparing", "step": "prepare", "done": 120, "total": 480, "seconds_left": 180.0}
        heartbeat = {**fence(lease), "progress": progress}
        http.post(f"/v1/trials/{lease['trial_id']}/reports", json=heartbeat).raise_for_status()
    line = "data set: decoding 120/480 videos, 3 min left"
    assert f"trains trial 0 of demo: {line}" in _row(hpo, service, "busy")
    assert "waits" in _row(hpo, service, "idle")
    assert f"running: trial 0 on busy: {line}" in hpo(service, "study", "show", "demo").out.splitlines()
    assert line in hpo(service, "trial", "show", "demo", "0").out.splitlines()


def test_a_host_in_quarantine_is_one_line_and_released_by_its_name(service: Service, hpo: Command) -> None:
    service.suggest(service.create(), 9)
    for name in ("sick", "ill"):
        for _ in range(2):
            _fault(service, "the disk is full", name=name)
    with service.http("worker") as http:
        assert http.post("/v1/leases", json=claim_body("idle")).status_code == 204
    assert "waits: its host is in quarantine" in _row(hpo, service, "idle")
    (line,) = [line for line in hpo(service, "workers").out.splitlines() if line.startswith("host ")]
    assert line.startswith("host here is in quarantine until ")
    assert line.endswith(
        "several of its workers, and no others, failed alike: storage (the disk is full); when it is repaired: "
        "`hpo workers release --host here`"
    )
    said = hpo(service, "workers", "release", "--host", "here")
    assert (said.code, said.out) == (0, "the workers of here may have trials again\n")
    assert "quarantine" not in hpo(service, "workers").out
    assert [hpo(service, "workers", "release", *names).code for names in ((), ("sick", "--host", "here"))] == [1, 1]


def test_those_that_live_come_first_and_those_of_yesterday_are_counted(service: Service, hpo: Command) -> None:
    assert hpo(service, "workers").out.startswith("no worker was heard of yet: start one with ")
    service.suggest(service.create(), 6)
    for name in ("old", "silent", "well"):
        with service.http("worker") as http:
            http.post("/v1/leases", json=claim_body(name)).raise_for_status()
    run(service.database, "UPDATE worker SET last_seen = last_seen - interval '26 h' WHERE name = 'old'")
    run(service.database, "UPDATE worker SET last_seen = last_seen - interval '7 min' WHERE name = 'silent'")
    said = hpo(service, "workers").out
    assert said.index(" well ") < said.index(" silent ")
    assert "old" not in said.replace("--all", "")
    assert said.splitlines()[-1] == "not shown: 1 not heard of for a day (--all)"
    assert " 7 min ago" in _row(hpo, service, "silent")
    assert " s ago" in _row(hpo, service, "well")
    (row,) = [line for line in hpo(service, "workers", "--all").out.splitlines() if " old " in line]
    assert " 26 h 0 min ago" in row


def test_a_worker_that_was_not_heard_for_a_while_is_silent() -> None:
    from hpo.cli.workers import state_of

    seen: dict[str, Any] = {"quarantined_at": None, "trial_id": None, "alive": False}
    assert state_of(seen) == "silent"


def test_an_api_of_an_earlier_release_says_less_of_a_worker() -> None:
    from hpo.cli.workers import hosts_in_quarantine, state_of

    seen: dict[str, Any] = {"name": "w", "host": "here", "trial_id": 3, "alive": True}
    assert state_of(seen) == "trains a trial"
    assert hosts_in_quarantine([seen]) == []
