"""Each fault of a machine, put there on one real worker while another is well: no trial is lost to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy import text

from hpo.store import quarantine, workers
from hpo.store.workers import WorkerRow
from hpo.trial import Fault

from ..api.service import Service
from ..cli.conftest import Command
from ..workers.bench import GOOD, Bench, WorkerProcess, wait_until

HOOK = Path(__file__).parent / "hook"
SICK, WELL = "sick", "well"
SHORT = {"epochs": 1}


def sick(**variables: str) -> dict[str, str]:
    """Return the environment of a process that the hook makes sick."""
    return {"PYTHONPATH": str(HOOK), **variables}


def row(bench: Bench, name: str = SICK) -> WorkerRow:
    """Return a worker as the store knows it."""
    with bench.database.transaction() as connection:
        return next(found for found in workers.list_all(connection) if found.name == name)


def in_quarantine(bench: Bench) -> bool:
    """Return whether the sick worker gets no trials any more, and let waits of retries be over."""
    bench.skip_backoff()
    with bench.database.transaction() as connection:
        return quarantine.reason(connection, SICK) is not None


def all_completed(bench: Bench, study: int) -> bool:
    """Return whether all trials of a study are completed, and let waits of retries be over."""
    bench.skip_backoff()
    return all(trial.state == "completed" for trial in bench.trials(study))


def complete_with_another(bench: Bench, study: int) -> None:
    """Let a worker that is well train what is there; nothing may have failed or have cost a retry."""
    bench.skip_backoff()
    count = len(bench.trials(study))
    worker = bench.worker("--name", WELL, "--max-trials", str(count), home=bench.home / WELL)
    assert worker.wait() == 0, worker.said
    trials = bench.trials(study)
    assert [(trial.state, trial.retries) for trial in trials] == [("completed", 0)] * count
    assert {trial.lease_worker for trial in trials} == {WELL}


def assert_quarantined(bench: Bench, worker: WorkerProcess, fault: Fault) -> None:
    """Wait until the worker gets no trials because of this fault, and says so."""
    wait_until(lambda: in_quarantine(bench), "the quarantine")
    assert (row(bench).fault, row(bench).faults) == (fault, 2)
    wait_until(lambda: "the API gives this worker no trial: 2 faults in a row" in worker.said)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_lost_after_the_start_ends_the_worker_and_no_trial(bench: Bench) -> None:
    """This machine has no GPU, as one that has lost it: the training fails as it would there."""
    study = bench.study("lost", [GOOD, GOOD], task=SHORT)
    problem = {"problem": "PyTorch cannot use it (No CUDA GPUs are available)", "name_others": True}
    variables = sick(SICK_PROBE=json.dumps(problem))
    worker = bench.worker(device=("--gpu", "0"), variables=variables, home=bench.home / SICK)
    assert worker.wait() == 7, worker.said
    (last,) = [line for line in worker.said.splitlines() if line.startswith("hpo-worker: ")]
    assert "cuda:0 cannot be used any more: PyTorch cannot use it (No CUDA GPUs are available)" in last
    with bench.database.transaction() as connection:
        (seen,) = workers.list_all(connection)
    assert seen.name.endswith(":GPU-5c3d8a2f")
    assert seen.fault == Fault.DEVICE
    complete_with_another(bench, study)


@pytest.mark.parametrize(
    ("raised", "fault"),
    [
        ("RuntimeError('CUDA error: uncorrectable ECC error encountered')", Fault.DEVICE),
        pytest.param("OSError(116, 'Stale file handle', '/data')", Fault.STORAGE, marks=pytest.mark.slow),
    ],
)
def test_a_machine_whose_trainings_fail_gets_no_trials(bench: Bench, raised: str, fault: Fault) -> None:
    study = bench.study("sick", [GOOD, GOOD], task=SHORT)
    worker = bench.worker("--name", SICK, variables=sick(SICK_TRAINING=raised), home=bench.home / SICK)
    assert_quarantined(bench, worker, fault)
    complete_with_another(bench, study)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, without room for the frames of the data set."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_that_machines_and_people_see_it(
    bench: Bench, full_disk: Path, service: Service, hpo: Command
) -> None:
    """Two hosts: what they are called is played, the disk of one of them is full."""
    study = bench.study("full", [GOOD, GOOD], task=SHORT)
    worker = bench.worker("--name", SICK, home=full_disk, variables=sick(PLAYED_HOST="node1"))
    assert_quarantined(bench, worker, Fault.STORAGE)
    (shown,) = [line for line in hpo(service, "workers").out.splitlines() if f" {SICK} " in line]
    assert " node1 " in shown
    assert "in quarantine until " in shown
    assert "2 faults in a row, the last: storage (" in shown
    assert " has 0.0 GB free; free some, " in shown
    with service.http("read") as http:
        page = http.get("/workers").raise_for_status().text
        attributes = http.get("/api/studies").raise_for_status().text
    assert " has 0.0 GB free; free some, " in page
    assert "1 of 1 in quarantine: sick: 2 faults in a row, the last one of its disk: " in attributes
    complete_with_another(bench, study)


@pytest.mark.slow
def test_a_data_set_that_one_machine_lacks_is_that_machines(bench: Bench, service: Service, hpo: Command) -> None:
    """Two machines with different folders under the same path: a relative one, which the API would refuse."""
    elsewhere = bench.home / "elsewhere"
    elsewhere.mkdir(parents=True)
    task = {**SHORT, "dataset": {"root": bench.videos.name, "short_side": 32}}
    study = bench.study("lacking", [GOOD] * 3, task=task)
    well = bench.worker("--name", WELL, "--max-trials", "3", home=bench.home / WELL, cwd=bench.videos.parent)
    wait_until(lambda: bench.trial(study).lease_worker == WELL)
    bench.worker("--name", SICK, home=bench.home / SICK, cwd=elsewhere, variables=sick(PLAYED_HOST="node1"))
    wait_until(lambda: _missed(bench))
    # The other worker has yet to train what this one has given back, so the study has not ended.
    (shown,) = [line for line in hpo(service, "workers").out.splitlines() if " node1 " in line]
    assert "waits; nothing of lacking until " in shown
    assert "whose files it lacks (" in shown
    wait_until(lambda: all_completed(bench, study))
    assert well.wait() == 0, well.said
    assert [(trial.retries, trial.lease_worker) for trial in bench.trials(study)] == [(0, WELL)] * 3
    assert _missed(bench) == [(SICK, Fault.FILES)], "once"
    assert row(bench).faults == 0, "it may train other studies"


def _missed(bench: Bench) -> list[tuple[str, str]]:
    """Return the worker and the fault of each attempt that ended by one."""
    with bench.database.transaction() as connection:
        found = connection.execute(text("SELECT worker, fault FROM attempt WHERE fault IS NOT NULL"))
        return [(row.worker, row.fault) for row in found]


@pytest.mark.slow
def test_a_training_that_is_stopped_is_noticed_and_trained_again(bench: Bench) -> None:
    study = bench.study("stopped", [GOOD], task={"epochs": 40})
    worker = bench.worker("--name", SICK, "--max-trials", "2", "--hang-minutes", "0.15")
    wait_until(bench.reached(study, 1))
    training = worker.children()[0]
    os.kill(training, signal.SIGSTOP)
    wait_until(lambda: bench.trial(study).retries == 1, "the process that was stopped was not noticed")
    assert not Path(f"/proc/{training}").exists()
    assert "gave no sign of life for" in worker.said
    assert row(bench).fault == Fault.HANG
    bench.skip_backoff()
    assert worker.wait() == 0, worker.said
    trial = bench.trial(study)
    assert (trial.state, trial.attempt) == ("completed", 2)
