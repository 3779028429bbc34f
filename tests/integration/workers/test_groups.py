"""One trial on two machines: two workers on this one, of which one leads. Their processes and connections are real."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.tiny import without_timing

from .bench import GOOD, Bench, WorkerProcess, wait_until

TWO = {"resources": {"nodes": 2}}
SAME_EVERYWHERE = {"dropout": 0.0, "batch_norm": "freeze"}
"""What ranks neither draw for themselves nor add up in another order than one process does."""


@pytest.fixture
def meet() -> str:
    """A port of this machine at which a group meets."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def _member(bench: Bench, meet: str, node: int, *options: str, **rest: Any) -> WorkerProcess:
    return bench.worker("--nodes", "2", "--node-rank", str(node), "--meet", meet, *options, **rest)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _are_gone(pids: Sequence[int]) -> bool:
    return not any(_is_alive(pid) for pid in pids)


def _below(worker: WorkerProcess) -> list[int]:
    """Return all processes that a worker has started, and those that they have."""
    found, left = [], worker.children()
    while left:
        pid = left.pop()
        found.append(pid)
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            left += [int(child) for child in thread.read_text().split()]
    return found


@pytest.mark.slow
def test_two_machines_train_what_two_processes_and_one_do(bench: Bench, meet: str, tmp_path: Path) -> None:
    base = bench.base(**SAME_EVERYWHERE)
    task = {"epochs": 3, "base": base}
    studies = {
        "one": bench.study("one", [GOOD], task=task),
        "ranks": bench.study("ranks", [GOOD], task=task, resources={"gpus": 2}),
        "nodes": bench.study("nodes", [GOOD], task=task, **TWO),
    }
    # The follower has a data directory of its own: it sees no checkpoint of the leader, nor its prepared frames.
    workers = [
        _member(bench, meet, 0, "--max-trials", "1"),
        _member(bench, meet, 1, home=tmp_path / "other", variables={"HPO_DATA_ROOTS": str(bench.videos)}),
        bench.worker("--max-trials", "1", "--study", "one"),
        bench.worker("--max-trials", "1", "--study", "ranks", device=("--cpu", "--ranks", "2")),
    ]
    for worker in workers:
        assert worker.wait() == 0, worker.said
    trials = {name: bench.trial(study) for name, study in studies.items()}
    assert {name: trial.state for name, trial in trials.items()} == dict.fromkeys(studies, "completed")
    expected = without_timing(trials["one"].metrics)
    for name in ("ranks", "nodes"):
        assert without_timing(trials[name].metrics) == pytest.approx(expected, abs=1e-5), name
    assert without_timing(trials["nodes"].metrics) == without_timing(trials["ranks"].metrics)
    assert "the leader has ended" in workers[1].said
    rows = {name: bench.measurements(trial.id) for name, trial in trials.items()}
    assert all(row.gpu_seconds == pytest.approx(2 * row.wall_seconds) for row in rows["nodes"])


@pytest.mark.slow
def test_whatever_happens_to_a_machine_the_trial_resumes_and_no_process_is_left(bench: Bench, meet: str) -> None:
    study = bench.study("interrupted", [GOOD], task={"epochs": 10_000, "base": bench.base()}, **TWO)
    leader, follower = _member(bench, meet, 0), _member(bench, meet, 1)

    wait_until(bench.reached(study, 1))
    started, done = _below(follower), bench.trial(study).epochs_done
    follower.signal(signal.SIGKILL)
    wait_until(lambda: "is gone, with its ranks" in leader.said)
    wait_until(lambda: _are_gone(started), "the ranks of a follower that was killed")
    wait_until(bench.is_in(study, "suggested"))
    assert bench.trial(study).retries == 1
    bench.skip_backoff()

    follower = _member(bench, meet, 1)
    wait_until(bench.reached(study, done + 2))
    assert leader.said.count("resumes after epoch") == 1
    done = bench.trial(study).epochs_done
    follower.signal(signal.SIGTERM)
    assert follower.wait() == 0, follower.said
    wait_until(bench.is_in(study, "suggested"))
    trial = bench.trial(study)
    assert (trial.retries, trial.epochs_done >= done) == (1, True), "given back in order, which is no fault"

    follower = _member(bench, meet, 1)
    wait_until(bench.reached(study, trial.epochs_done + 1))
    assert leader.said.count("resumes after epoch") == 2
    started = _below(leader) + _below(follower)
    leader.signal(signal.SIGKILL)
    leader.wait()
    wait_until(lambda: _are_gone(started), "the ranks of both machines")
    assert follower.process.poll() is None
    bench.expire_leases()
    done = bench.trial(study).epochs_done

    leader = _member(bench, meet, 0)
    wait_until(bench.reached(study, done + 1))
    started = _below(leader) + _below(follower)
    leader.signal(signal.SIGTERM)
    assert leader.wait() == 0, leader.said
    follower.signal(signal.SIGTERM)
    assert follower.wait() == 0, follower.said
    assert _are_gone(started)
    assert bench.trial(study).state == "suggested"


def test_followers_that_do_not_belong_to_a_group_are_refused(bench: Bench, meet: str) -> None:
    leader = _member(bench, meet, 0)
    stranger = _member(bench, meet, 1, variables={"HPO_TOKEN": "hpo_another"})
    larger = bench.worker(*("--nodes", "2", "--node-rank", "1", "--meet", meet, "--ranks", "2"), device=("--cpu",))
    assert stranger.wait() == 5
    assert "another token" in stranger.said
    assert larger.wait() == 1
    assert "gpus is 2 on" in larger.said
    assert "waiting for the followers of node rank 1" in leader.said
    os.kill(leader.process.pid, signal.SIGTERM)
    assert leader.wait() == 0, leader.said
