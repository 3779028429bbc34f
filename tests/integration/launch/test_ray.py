"""`hpo launch ray` on a Ray cluster of four raylets: amid trials, one is killed, one taken away and one added."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hpo.spec import parse_spec
from hpo.store import lifecycle, studies
from hpo.trial import Suggestion

from ..api.service import Service
from ..workers.bench import GOOD, Bench, bench_in, running, wait_until
from ..workers.conftest import service, videos

__all__ = ["service", "videos"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EPOCHS = 5
HELD = 3
"""The epoch in which the first attempts wait until the test has done its worst."""
TRIALS = 3
START_SECONDS = 600.0
FUNCTION = f"""
import os, time
from pathlib import Path

def train(trial):
    gates = Path(trial.params["gates"])
    state = {{"sum": 0.0}}
    for epoch in trial.epochs(resume=state.update):
        state["sum"] += trial.params["x"] * epoch
        (gates / f"{{trial.number}}-{{trial.attempt}}-{{epoch}}.at").write_text(str(os.getpid()))
        while trial.attempt == 1 and epoch == {HELD} and not (gates / "open").exists():
            time.sleep(0.02)
        trial.report(score=state["sum"], checkpoint=dict(state))
"""


NODE: dict[str, Any] = {
    "num_cpus": 1,
    "node_ip_address": "127.0.0.2",  # Ray takes 127.0.0.1 for the address of the machine in its network
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of three raylets on loopback, each with room for one worker."""
    pytest.importorskip("ray", reason="Ray is not installed: it comes with the extra `ray`")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # of itself 15: beside other tests they would get little
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", f"{START_SECONDS:.0f}")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", f"{1000 * START_SECONDS:.0f}")
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets have to be short
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (folder / "ray").mkdir()  # Ray notes the newest cluster there, and does not make it
    made = Cluster()
    try:
        made.add_node(**NODE)
        for _ in range(2):
            made.add_node(**NODE)
        yield made
    finally:
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bench(service: Service, tmp_path: Path) -> Iterator[Bench]:
    """A bench without videos."""
    with running(bench_in(tmp_path, service)) as made:
        yield made


def _study(bench: Bench, gates: Path) -> int:
    spec = parse_spec(
        {
            "name": "functions",
            "objectives": [{"metric": "score"}],
            "task": {
                "kind": "custom",
                "metrics": {"score": "maximize"},
                "epochs": EPOCHS,
                "base": {"gates": str(gates)},
            },
            "space": {"x": {"type": "float", "low": 0.0, "high": 10.0}},
            "budget": {"trials": TRIALS},
        }
    )
    with bench.database.transaction() as connection:
        study = studies.create(connection, spec, actor="test")
        generation = studies.acquire_generator(connection, study.id, "test", 3600.0)
        assert generation is not None
        proposals = [Suggestion(params={"x": 1.0 + place}, generator="test") for place in range(TRIALS)]
        lifecycle.suggest(connection, study.id, proposals, owner="test", generation=generation)
    return study.id


def _launch(bench: Bench, address: str, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
    bench.home.mkdir(exist_ok=True)
    token, log = bench.home / "worker.token", bench.home / "launch.log"
    token.write_text(bench.token)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("hpo")),
                *("--home", str(bench.home), "--url", bench.url, "--token-file", str(token)),
                *("launch", "ray", "--address", address, "--gpus-per-worker", "0", *options),
            ],
            stdout=output,
            stderr=output,
        )
    return process, log


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these started."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


def _lose(pid: int) -> list[int]:
    """Kill a raylet and whatever its node runs, as when its power fails; return what was killed."""
    gone = [pid, *_descendants(pid)]
    for one in gone:
        os.kill(one, signal.SIGKILL)
    return gone


def _node_of(nodes: list[Any], pid: int) -> Any:
    """Return the node on which a process runs."""
    (found,) = [node for node in nodes if pid in _descendants(_raylet(node))]
    return found


def _raylet(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def _begun(gates: Path) -> list[tuple[int, int, int]]:
    """Return trial, attempt and epoch of each epoch that was begun."""
    found = [path.stem.split("-") for path in gates.glob("*.at")]
    return sorted((int(trial), int(attempt), int(epoch)) for trial, attempt, epoch in found)


def test_a_lost_node_costs_the_epoch_that_ran_there_and_one_that_is_taken_away_costs_none(
    cluster: Any, bench: Bench, tmp_path: Path
) -> None:
    gates, function = tmp_path / "gates", tmp_path / "mine.py"
    gates.mkdir()
    function.write_text(FUNCTION)
    study_id = _study(bench, gates)
    launched, log = _launch(
        bench, cluster.address, "--workers", "3", "--idle-seconds", "2", "--until-done", "--entry", f"{function}:train"
    )
    try:
        _interrupt(cluster, bench, study_id, gates=gates, log=log)
        assert launched.wait(START_SECONDS) == 0, log.read_text()
    finally:
        launched.kill()
        launched.wait()
    trials = bench.trials(study_id)
    assert [(trial.state, trial.epochs_done) for trial in trials] == [("completed", EPOCHS)] * TRIALS
    measured = Counter((row.trial_id, row.step) for trial in trials for row in bench.measurements(trial.id))
    assert set(measured.values()) == {1}, "no epoch that had ended was run again"
    assert {trial.metrics["score"] for trial in trials} == {
        (1.0 + x) * EPOCHS * (EPOCHS + 1) / 2 for x in range(TRIALS)
    }
    begun = Counter((trial, epoch) for trial, _, epoch in _begun(gates))
    assert Counter(begun.values()) == {1: TRIALS * EPOCHS - 1, 2: 1}, (
        "the epoch that ran on the lost node, and no other"
    )
    said = log.read_text()
    assert "is lost: " in said
    assert "its node is about to be taken away" in said
    assert bench.token not in said
    assert not _files_with(bench.token, Path(cluster.head_node.get_logs_dir_path()))


def _interrupt(cluster: Any, bench: Bench, study_id: int, *, gates: Path, log: Path) -> None:
    """While each node trains, lose one and have another taken away; then add one, and let the trials go on."""
    held = [gates / f"{number}-1-{HELD}.at" for number in range(TRIALS)]
    wait_until(lambda: all(at.exists() for at in held), "each node trains", seconds=START_SECONDS)
    wait_until(lambda: [trial.epochs_done for trial in bench.trials(study_id)] == [HELD - 1] * TRIALS)
    pids = [int(at.read_text()) for at in held]
    numbers = {_node_of(cluster.list_all_nodes(), pid): number for number, pid in enumerate(pids)}
    assert len(numbers) == TRIALS
    lost, taken = cluster.worker_nodes
    _lose(_raylet(lost))
    trial = bench.trial(study_id, numbers[lost])
    bench.sql("UPDATE trial SET lease_expires_at = clock_timestamp() - interval '1 s' WHERE id = :id", id=trial.id)
    wait_until(lambda: bench.trial(study_id, numbers[lost]).state == "suggested", "its lease expires")
    bench.skip_backoff()
    _take_away(cluster.address, taken.node_id)
    logs = bench.home / "launch" / "ray"
    wait_until(lambda: any("asked to stop" in file.read_text() for file in logs.glob("*.log")), "the worker drains")
    wait_until(lambda: "its node is about to be taken away" in log.read_text(), "that is told")
    (gates / "open").touch()
    cluster.add_node(**NODE)


def _take_away(address: str, node: str) -> None:
    """Tell Ray that a node will be gone in a minute, as a cloud does of one that it takes back."""
    reason = [
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "test",
        "--deadline-remaining-seconds",
        "60",
    ]
    ray = str(Path(sys.executable).with_name("ray"))
    subprocess.run(
        [ray, "drain-node", "--address", address, "--node-id", node, *reason], check=True, capture_output=True
    )


def _files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_the_workers_of_two_nodes_train_a_trial_together(
    cluster: Any, service: Service, tmp_path: Path, videos: Path
) -> None:
    with running(bench_in(tmp_path, service, videos)) as bench:
        study = bench.study("group", [GOOD], task={"epochs": 2, "base": bench.base()}, resources={"nodes": 2})
        launched, log = _launch(
            bench, cluster.address, "--workers", "1", "--nodes", "2", "--idle-seconds", "2", "--until-done"
        )
        try:
            assert launched.wait(START_SECONDS) == 0, log.read_text()
        finally:
            launched.kill()
            launched.wait()
        trial = bench.trial(study)
        assert (trial.state, trial.epochs_done) == ("completed", 2), log.read_text()
        rows = bench.measurements(trial.id)
        assert all(row.gpu_seconds == pytest.approx(2 * row.wall_seconds) for row in rows)
        said = "".join(file.read_text() for file in (bench.home / "launch" / "ray").glob("*.log"))
        assert "ranks 1 to 1 of trial 0 of group" in said
