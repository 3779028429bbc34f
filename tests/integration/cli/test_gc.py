"""`hpo gc` and the deletion of studies, with real files and a real service."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hpo.cli.files import remove_study_files, size_of
from hpo.store import Database, studies
from tests.unit.workers.checkpoints.test_stored import DIGEST, put

from ..api.service import Service, claim_body, finished, serving
from .conftest import Command

FINAL, RESUME, LOG = f"final-a0001-{DIGEST}.pt", f"a0001-e0003-b0000000-{DIGEST}.pt", "attempt-0001.log"


def make_study(service: Service, **changes: Any) -> tuple[UUID, list[int]]:
    """Return the UUID of a study and the ids of its two completed trials, the worse one first."""
    study_id = service.create(**changes)
    service.suggest(study_id, 2)
    ids: list[int] = []
    with service.http("worker") as http:
        for value in (0.25, 0.75):
            lease = http.post("/v1/leases", json=claim_body()).raise_for_status().json()
            end = finished(lease, value, checkpoint=f"/elsewhere/{lease['trial_id']}/{FINAL}")
            http.post(f"/v1/trials/{lease['trial_id']}/finish", json=end).raise_for_status()
            ids.append(lease["trial_id"])
    with service.database.transaction() as connection:
        return studies.get_by_id(connection, study_id).uuid, ids


def fill(root: Path, study: UUID, ids: list[int]) -> list[Path]:
    """Write a final checkpoint, a resume point and a log for each trial, and return their paths."""
    return [put(root, name, study=study, trial=trial) for trial in ids for name in (FINAL, RESUME, LOG)]


def test_gc_shows_what_goes_and_why_removes_it_and_keeps_the_best(
    service: Service, hpo: Command, tmp_path: Path
) -> None:
    study, ids = make_study(service, checkpoints={"last": False})
    paths = fill(tmp_path / "checkpoints", study, ids)
    dry = hpo(service, "gc", "--dry-run")
    assert all(path.exists() for path in paths)
    assert "study demo: 30 B of 2 trials" in dry.out
    assert "can go       10 B  what ended trials do not continue from any more" in dry.out
    assert "can go        5 B  weights: the policy of the study" in dry.out
    (report,) = hpo(service, "gc", "--json", scope="worker").json
    assert (report["study"], report["uuid"], report["removed_bytes"]) == ("demo", str(study), 15)
    worse, best = (tmp_path / "checkpoints" / str(study) / str(trial) for trial in ids)
    assert [path.name for path in worse.iterdir()] == [LOG]
    assert {path.name for path in best.iterdir()} == {FINAL, LOG}
    assert hpo(service, "gc", "--json").json[0]["files"] == 0
    with service.http("read") as http:
        exports = [http.get("/v1/studies/demo/export", params={"format": "json", "trial": n}).json() for n in (0, 1)]
    assert [export["checkpoint"] for export in exports] == [None, f"/elsewhere/{ids[1]}/{FINAL}"]


def test_gc_removes_logs_of_processes_that_died_before_they_had_a_trial(
    service: Service, hpo: Command, tmp_path: Path
) -> None:
    left = tmp_path / "checkpoints" / ".standby-4711-1-locked.log"
    left.parent.mkdir(parents=True)
    left.touch()
    os.utime(left, (0, 0))
    assert "can go: 1 log of standby processes that died" in hpo(service, "gc", "--dry-run").out
    assert hpo(service, "gc", "--study", "other").code == 0
    assert left.exists()
    assert "removed: 1 log of standby processes that died" in hpo(service, "gc").out
    assert not left.exists()


def test_gc_removes_logs_of_launchers_of_this_machine_a_week_after_their_end(
    service: Service, hpo: Command, tmp_path: Path
) -> None:
    folder, here, gone = tmp_path / "launch", socket.gethostname(), 2**22 + 1  # no process has such a number
    old = [folder / f"{here}-{gone}" / "cpu-0.log", folder / "ray" / f"{here}-{gone}.log"]
    kept = [
        folder / f"{here}-{os.getpid()}" / "cpu-0.log",
        folder / f"elsewhere-{gone}" / "cpu-0.log",
        folder / "slurm-20260101-120000-7" / "token",
    ]
    for path in (*old, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    for place in folder.iterdir():
        os.utime(place, (0, 0))
    fresh = folder / f"{here}-{gone + 1}" / "cpu-0.log"
    fresh.parent.mkdir()
    fresh.touch()
    assert "can go: 2 logs of launchers that ended a week ago" in hpo(service, "gc", "--dry-run").out
    assert hpo(service, "gc", "--study", "other").code == 0
    assert all(path.exists() for path in old)
    assert "removed: 2 logs of launchers that ended a week ago" in hpo(service, "gc").out
    assert not any(path.exists() for path in (*old, old[0].parent))
    assert all(path.exists() for path in (*kept, fresh))


def test_gc_of_one_study_and_other_roots(service: Service, hpo: Command, tmp_path: Path) -> None:
    study, ids = make_study(service)
    fill(tmp_path / "share", study, ids)
    (tmp_path / "share" / "3").mkdir()
    nothing = hpo(service, "gc", "--study", "other", "--checkpoint-root", tmp_path / "share")
    assert nothing.out == f"there are no files of a study other in {tmp_path}/share\n"
    found = hpo(service, "gc", "--study", "demo", "--checkpoint-root", tmp_path / "share", "--json").json
    assert [report["files"] for report in found] == [2]
    assert (
        "share also has a folder of releases up to 0.2.0 (3). The name does not say"
        in hpo(service, "gc", "--checkpoint-root", tmp_path / "share").out
    )
    assert hpo(service, "gc", "--checkpoint-root", tmp_path / "share", scope="read").code == 5


def test_files_of_a_study_that_the_service_does_not_know_go_only_by_their_uuid(
    service: Service, hpo: Command, tmp_path: Path
) -> None:
    unknown = UUID(int=77)
    (path,) = (put(tmp_path / "checkpoints", FINAL, study=unknown),)
    said = hpo(service, "gc")
    assert path.exists()
    assert f"hpo gc --forget {unknown}" in said.out
    hpo(service, "gc", "--forget", str(unknown))
    assert not path.parent.parent.exists()


def test_deleting_a_study_deletes_its_files_here_and_at_the_service_and_gc_those_elsewhere(
    database: Database, hpo: Command, tmp_path: Path
) -> None:
    roots = [tmp_path / name for name in ("of the service", "checkpoints", "of another machine")]
    with serving(database, remove_files=partial(remove_study_files, roots[0])) as service:
        study, ids = make_study(service)
        for root in roots:
            fill(root, study, ids)
        pinned = put(roots[0], RESUME, study=study, trial=ids[0])
        pinned.chmod(0o444)
        said = hpo(service, "study", "delete", "demo", "--yes")
        assert said.out.splitlines()[:2] == ["study demo is deleted", "removed 11 files (55 B)"]
        assert "its trials ran on here" in said.out
        assert f"{pinned} stays: it is read-only" in said.err
        assert "/elsewhere stays: a release up to 0.2.0 wrote it" in said.err
        assert [root.joinpath(str(study)).exists() for root in roots] == [True, False, True]
        again = hpo(service, "gc", "--checkpoint-root", roots[2])
        assert "study demo (deleted)" in again.out
        assert not (roots[2] / str(study)).exists()


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_999, "1 MB"), (12_340_000_000, "12.3 GB")]
)
def test_sizes_are_written_in_a_unit_that_a_person_reads(count: int, shown: str) -> None:
    assert size_of(count) == shown
