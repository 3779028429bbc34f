"""A trial of two nodes in a job of a real Slurm: a worker is killed, time is over, somebody cancels the job."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from hpo.installation import program_path
from tests.integration.api.service import Service
from tests.integration.workers.bench import GOOD, Bench, bench_in, running, wait_until
from tests.integration.workers.conftest import service, videos

from .slurm import said, slurm_of

pytest.importorskip("submitit")
__all__ = ["service", "videos"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TURN_SECONDS = 400.0
"""Slurm gives a job that it queues again its next turn after two minutes, and looks at time limits twice a minute."""


def _submit(bench: Bench, *options: str) -> tuple[str, Path]:
    """Return Slurm's number of a job of two nodes, and the folder of its outputs."""
    bench.home.mkdir(exist_ok=True)
    variables = {"HPO_HOME": str(bench.home), "HPO_URL": bench.url, "HPO_TOKEN": bench.token, "OMP_NUM_THREADS": "1"}
    command = [program_path("hpo"), "launch", "slurm", "--nodes", "2", "--gpus-per-job", "0", "--cpus-per-job", "1"]
    done = subprocess.run(
        [*command, *options], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"submitted 1 job as (\d+); their outputs are in (.*)\n", done.stdout)
    assert found is not None, done.stdout
    return found[1], Path(found[2])


def _update(number: str, change: str) -> None:
    """Have Slurm change a job."""
    command = ["scontrol", "update", f"JobId={number}", change]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _worker_of(outputs: Path, task: int) -> int:
    """Return the newest worker process that the launcher of a task has started."""
    (output,) = outputs.glob(f"*_{task}_log.out")
    return int(re.findall(r"started(?: again)? \(pid (\d+)\)", output.read_text())[-1])


def _processes_with(text: str) -> list[str]:
    """Return the command lines of all processes that have a text among their arguments."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in line:
            found.append(line)
    return found


def test_two_nodes_of_slurm_train_a_trial_together_through_all_that_happens_to_a_job(
    service: Service, tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slurm_of(tmp_path / "slurm", monkeypatch, nodes=2), running(bench_in(tmp_path, service, videos)) as bench:
        study = bench.study("nodes", [GOOD], task={"epochs": 10_000, "base": bench.base()}, resources={"nodes": 2})
        number, outputs = _submit(bench, "--time", "60", "--notice", "120")
        assert said("squeue", "-h", "-o", "%D") == "2\n"

        wait_until(bench.reached(study, 1), "both nodes train", seconds=TURN_SECONDS)
        os.kill(_worker_of(outputs, 1), signal.SIGKILL)
        wait_until(bench.is_in(study, "suggested"), "the trial is given back")
        bench.skip_backoff()
        done = bench.trial(study).epochs_done
        wait_until(bench.reached(study, done + 1), "the trial goes on", seconds=TURN_SECONDS)

        # Only now: a limit that runs from the start would come amid the restart on a slow machine.
        _update(number, "EndTime=now+3minutes")
        wait_until(lambda: number in said("squeue", "-h", "-t", "PD"), "time is over", seconds=TURN_SECONDS)
        _update(number, "TimeLimit=60")
        trial = bench.trial(study)
        assert (trial.state, trial.retries) == ("suggested", 1), "given back in order, which is no fault"

        wait_until(bench.reached(study, trial.epochs_done + 1), "the second turn", seconds=TURN_SECONDS)
        said("scancel", number)
        wait_until(bench.is_in(study, "suggested"), "cancelled")
        assert bench.trial(study).retries == 1
        wait_until(lambda: not said("squeue", "-h"), "the job ends", seconds=TURN_SECONDS)
        wait_until(lambda: not _processes_with(str(bench.home)), "no process is left")
        rows = bench.measurements(bench.trial(study).id)
        assert all(row.gpu_seconds == pytest.approx(2 * row.wall_seconds) for row in rows)
        steps = [row.step for row in rows]
        assert steps == sorted(set(steps)), "no epoch was run again that had ended"
