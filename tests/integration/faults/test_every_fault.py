"""What GPUs, drivers and disks say when they fail, raised in the updates of real trainings by a real worker.

One worker takes a trial for each fault, and another one trains what was given back: each trial ends as it should.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from sqlalchemy import text

from hpo.store import lifecycle, quarantine
from hpo.trial import FailureKind, Fault

from ..workers.bench import GOOD, Bench, wait_until
from .test_sick_machines import SHORT, SICK, WELL, sick


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A fault, and what becomes of a trial that meets it."""

    error: str
    """The exception, as an expression."""
    ends: Fault | FailureKind | None
    """The fault with which the trial is given back, or the kind with which it has failed; None: it is completed."""
    short: bool = False
    """Whether memory of the GPU was short."""
    fits: int = 0
    """How many clips are computed at once without the error."""


def cuda(words: str) -> str:
    return f"RuntimeError({f'CUDA error: {words}'!r})"


WORKSPACE: Final = (
    "RuntimeError('FIND was unable to find an engine to execute this computation')",
    "RuntimeError('GET was unable to find an engine to execute this computation')",
    "RuntimeError('Unable to find a valid cuDNN algorithm to run convolution')",
    "RuntimeError('cuDNN error: CUDNN_STATUS_INTERNAL_ERROR')",
    cuda("CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
)
"""What convolutions say where memory for their workspace is missing, among other causes."""
ROWS: Final = (
    Row(error="RuntimeError('No CUDA GPUs are available')", ends=Fault.DEVICE),
    Row(error=cuda("CUDA-capable device(s) is/are busy or unavailable"), ends=Fault.DEVICE),
    Row(error=cuda("uncorrectable ECC error encountered"), ends=Fault.DEVICE),
    Row(error=cuda("an illegal memory access was encountered"), ends=Fault.KERNEL),
    Row(error=cuda("unspecified launch failure"), ends=Fault.KERNEL),
    Row(error="OSError(5, 'Input/output error', '/data/v.avi')", ends=Fault.STORAGE),
    Row(error="OSError(116, 'Stale file handle', '/data')", ends=Fault.STORAGE),
    Row(error=cuda("no kernel image is available for execution on the device"), ends=Fault.ARCHITECTURE),
    Row(error="torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')", ends=FailureKind.OOM),
    *(Row(error=words, ends=Fault.KERNEL) for words in WORKSPACE),
    *(Row(error=words, ends=FailureKind.OOM, short=True) for words in WORKSPACE),
    Row(error=WORKSPACE[0], ends=None, short=True, fits=2),
)
COSTS_A_RETRY: Final = frozenset({Fault.KERNEL})


def faults(bench: Bench) -> list[tuple[int, str]]:
    """Return the number of each trial that was given back, and the fault."""
    query = """
        SELECT trial.number, attempt.fault FROM attempt JOIN trial ON trial.id = attempt.trial_id
        WHERE attempt.fault IS NOT NULL
    """
    with bench.database.transaction() as connection:
        return [(number, fault) for number, fault in connection.execute(text(query))]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with a GPU asks it whether memory was short")
def test_each_fault_of_a_machine_gives_the_trial_back_and_each_lack_of_memory_is_oom(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_SECONDS", 3600.0)  # what was given back is the other worker's
    monkeypatch.setattr(lifecycle, "BACKOFF_LIMIT_SECONDS", 3600.0)
    monkeypatch.setattr(quarantine, "FAULTS_IN_A_ROW", len(ROWS) + 1)  # one worker for all
    points = [{**GOOD, "weight_decay": place / 1000} for place in range(len(ROWS))]
    study = bench.study("rows", points, task=SHORT)
    rows = json.dumps([asdict(row) for row in ROWS])
    first = bench.worker(
        "--name", SICK, "--max-trials", str(len(ROWS)), variables=sick(SICK_UPDATES=rows), home=bench.home / SICK
    )
    wait_until(lambda: first.process.poll() is not None, "the end of the sick worker", seconds=600)
    assert first.process.returncode == 0, first.said

    trials = bench.trials(study)
    given_back = {place: row.ends for place, row in enumerate(ROWS) if isinstance(row.ends, Fault)}
    assert dict(faults(bench)) == given_back
    kinds = {trial.number: trial.failure_kind for trial in trials if trial.state == "failed"}
    assert kinds == {place: row.ends for place, row in enumerate(ROWS) if isinstance(row.ends, FailureKind)}
    assert all(trial.peak_memory_bytes for trial in trials if trial.state == "failed"), "the optimizer learns from it"
    (split,) = [trial for trial in trials if trial.state == "completed"]
    plan: dict[str, Any] = split.environment["memory_plan"]
    assert (split.number, plan["micro_batch"]) == (len(ROWS) - 1, 2), "it is computed in parts that fit"
    (line,) = [line for line in first.said.splitlines() if "trial 7 of rows: crashed: " in line]
    assert "was built without kernels for its GPU" in line

    bench.skip_backoff()
    second = bench.worker("--name", WELL, "--max-trials", str(len(given_back)), home=bench.home / WELL)
    wait_until(lambda: second.process.poll() is not None, "the end of the well worker", seconds=600)
    assert second.process.returncode == 0, second.said
    for trial in bench.trials(study):
        fault = given_back.get(trial.number)
        if fault is not None:
            ended = (trial.state, trial.lease_worker, trial.retries)
            assert ended == ("completed", WELL, int(fault in COSTS_A_RETRY)), fault


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, on which the trial would be trained")
def test_two_jobs_that_see_one_gpu_each_are_two_workers_and_memory_finds_the_larger(bench: Bench) -> None:
    """As under Slurm: both call their GPU 0, by CUDA_VISIBLE_DEVICES."""
    study = bench.study("large", [GOOD], task=SHORT)
    bench.sql("UPDATE trial SET required_memory_bytes = :bytes", bytes=40 * 2**30)
    cards = {"3": ("NVIDIA A100", 80, "GPU-aaaaaaaa-0000"), "1": ("Tesla T4", 16, "GPU-bbbbbbbb-0000")}
    for visible, (name, gib, uuid) in cards.items():
        card = json.dumps({"name": name, "memory_bytes": gib * 2**30, "uuid": uuid})
        variables = sick(PLAYED_GPU=card, PLAYED_HOST="node7", CUDA_VISIBLE_DEVICES=visible)
        limit = ("--max-trials", "1") if gib == 80 else ("--exit-when-idle", "0")
        worker = bench.worker(*limit, device=("--gpu", "0"), variables=variables)
        assert worker.wait() == 0, worker.said
        bench.skip_backoff()
    with bench.database.transaction() as connection:
        seen = connection.execute(text("SELECT name, device, gpu_name, memory_bytes FROM worker ORDER BY name")).all()
        claimed = connection.execute(text("SELECT worker FROM attempt")).scalars().all()
    assert [tuple(row) for row in seen] == [
        ("node7:GPU-aaaaaaaa", "cuda:0", "NVIDIA A100", 80 * 2**30),
        ("node7:GPU-bbbbbbbb", "cuda:0", "Tesla T4", 16 * 2**30),
    ]
    assert claimed == ["node7:GPU-aaaaaaaa"], "the other one is too small"
    assert bench.trial(study).state == "suggested", "this machine has no GPU: the trial waits for another"


def test_doctor_numbers_gpus_as_workers_do_and_names_one_without_kernels(bench: Bench) -> None:
    """On the bus the small card comes first; CUDA by itself would put the large one first."""
    cards = [
        {"name": "Tesla T4", "memory_bytes": 16 * 2**30, "uuid": "GPU-bbbbbbbb-0000"},
        {"name": "NVIDIA A100", "memory_bytes": 80 * 2**30, "uuid": "GPU-aaaaaaaa-0000"},
        {"name": "Tesla P100", "memory_bytes": 12 * 2**30, "problem": "PyTorch has no kernels for it (sm_60)"},
    ]
    variables = sick(PLAYED_CARDS=json.dumps(cards), PLAYED_HOST="node7")
    hpo = [str(Path(sys.executable).with_name("hpo")), "--home", str(bench.home), "--url", bench.url, "doctor"]
    said = subprocess.run(hpo, env={**os.environ, **variables}, check=False, capture_output=True, text=True)
    assert [line.split(maxsplit=2)[2] for line in said.stdout.splitlines() if " gpu " in line] == [
        "0: Tesla T4, 16 GiB (hpo-worker --gpu 0)",
        "1: NVIDIA A100, 80 GiB (hpo-worker --gpu 1)",
        "2: Tesla P100, 12 GiB (PyTorch has no kernels for it (sm_60))",
    ], said.stderr
    first = bench.worker("--exit-when-idle", "0", device=("--gpu", "0"), variables=variables)
    assert first.wait() == 0, first.said
    assert "worker node7:GPU-bbbbbbbb on cuda:0 (Tesla T4, 16 GiB" in first.said
