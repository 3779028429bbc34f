"""Workers in jobs: with submitit's local executor everywhere, with a real Slurm where one is installed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.installation import PYTHON, program_path
from hpo.launch.slurm import WorkersJob
from tests.integration.workers.bench import wait_until

from .conftest import EPOCHS, Gated
from .slurm import said, slurm_of

submitit = pytest.importorskip("submitit")


def test_a_job_that_is_signalled_gives_its_trial_back_and_continues_it_in_its_next_turn(
    gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = gated.gates / "token"
    token.write_text(gated.bench.token)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = ["--home", str(gated.bench.home), "--url", gated.bench.url, "--token-file", str(token)]
    launch = ["launch", "local", "--gpus", "none", *gated.options(), "--exit-when-idle", "0.2"]
    gated.bench.home.mkdir()
    executor = submitit.LocalExecutor(gated.gates / "jobs", max_num_timeout=9, python=shlex.join(PYTHON))
    executor.update_parameters(timeout_min=9)
    job = executor.submit(WorkersJob([program_path("hpo"), *root, *launch]), 0)
    try:
        gated.waits(attempt=1)
        # Before the time limit, Slurm signals all processes of the step; this is the one that submitit has started.
        (process,) = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()
        os.kill(int(process), signal.SIGUSR2)
        gated.open_when_draining(attempt=1)
        assert job.result() is None, job.stderr()
    finally:
        job.cancel(check=False)
    trial = gated.bench.trial(gated.study_id)
    assert (trial.state, trial.attempt, trial.epochs_done) == ("completed", 2, EPOCHS)
    assert gated.ends() == ["drained", "completed"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a Slurm whose only node is this machine; skips where it is not installed."""
    with slurm_of(tmp_path / "slurm", monkeypatch, nodes=1):
        yield tmp_path / "slurm"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_before_its_time_limit_a_job_of_slurm_gives_its_trial_back_and_is_queued_again(
    gated: Gated, slurm: Path
) -> None:
    gated.bench.home.mkdir()
    command = [program_path("hpo"), "launch", "slurm", "--jobs", "2", "--gpus-per-job", "0", "--time", "4"]
    options = ["--notice", "120", "--cpus-per-job", "1", *gated.options(), "--exit-when-idle", "5"]
    done = subprocess.run([*command, *options], env=gated.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"submitted 2 jobs as (\d+); their outputs are in (.*)\n", done.stdout)
    assert found is not None, done.stdout
    array, outputs = found[1], Path(found[2])
    assert stat.S_IMODE((outputs / "token").stat().st_mode) == 0o600
    secret = gated.bench.token.encode()
    assert not [file for file in slurm.rglob("*") if file.is_file() and secret in file.read_bytes()]

    gated.waits(attempt=1)
    gated.open_when_draining(attempt=1, seconds=300)
    wait_until(lambda: gated.ends() == ["drained"], "the trial is given back")
    wait_until(gated.bench.is_in(gated.study_id, "completed"), "the second turn", seconds=400)
    trial = gated.bench.trial(gated.study_id)
    assert (trial.attempt, trial.epochs_done) == (2, EPOCHS)
    wait_until(lambda: not said("squeue", "-h"), "both jobs end")
    jobs = said("scontrol", "show", "job", array)
    assert re.findall(r"JobState=(\w+)", jobs) == ["COMPLETED", "COMPLETED"], jobs
    assert sorted(re.findall(r"Restarts=(\d+)", jobs)) == ["0", "1"], jobs
