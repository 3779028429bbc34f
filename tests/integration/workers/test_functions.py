"""Workers that run a function of a person's own: results, failures, kills, and what is said of them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpo.service.data_versions import data_changed
from hpo.spec import parse_spec
from hpo.store import lifecycle, studies
from hpo.trial import Suggestion
from tests.integration.api.service import Service

from .bench import Bench, WorkerProcess, bench_in, running, wait_until

EPOCHS = 6
FUNCTION = """
import multiprocessing, os, subprocess, sys
from pathlib import Path

total = []

def processes():
    with multiprocessing.get_context("fork").Pool(2) as pool:  # its end terminates its processes
        found = sum(pool.map(abs, [-1, -2]))
    sleeper = subprocess.Popen(["sleep", "1000"])
    sleeper.terminate()
    return found - sleeper.wait() + len(subprocess.run(["cat"], capture_output=True).stdout)

def train(trial):
    total.append(1)
    print("so many trials in this process:", len(total))
    how = trial.params["how"]
    if how == "raise":
        return missing_name
    if how == "memory":
        raise MemoryError
    if how == "nan":
        return float("nan")
    if how == "exit":
        sys.exit(3)
    if how == "metric":
        return {"scor": 1}
    if how == "processes":
        return processes()
    if how == "value":
        return trial.params["x"] * 2
    gate = Path(trial.params["gates"])
    state = {"sum": 0.0}
    for epoch in trial.epochs(resume=state.update):
        state["sum"] += trial.params["x"] * epoch
        if epoch > 2:
            (gate / f"{trial.number}-{trial.attempt}-{epoch}.at").write_text(str(os.getpid()))
            while trial.attempt < 3 and epoch == 2 + trial.attempt and not (gate / "open").exists():
                os.sched_yield()
        trial.report(score=state["sum"], checkpoint=dict(state))
"""


@pytest.fixture
def bench(service: Service, tmp_path: Path) -> Iterator[Bench]:
    """A bench without videos."""
    with running(bench_in(tmp_path, service)) as made:
        yield made


def _study(bench: Bench, points: Sequence[dict[str, Any]], gates: Path) -> int:
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
            "space": {
                "x": {"type": "float", "low": 0.0, "high": 10.0},
                "how": {"type": "categorical", "choices": sorted({point["how"] for point in points} | {"value"})},
            },
            "budget": {"trials": len(points)},
        }
    )
    with bench.database.transaction() as connection:
        study = studies.create(connection, spec, actor="test")
        generation = studies.acquire_generator(connection, study.id, "test", 3600.0)
        assert generation is not None
        proposals = [Suggestion(params=point, generator="test") for point in points]
        lifecycle.suggest(connection, study.id, proposals, owner="test", generation=generation)
    return study.id


def _worker(bench: Bench, tmp_path: Path, source: str = FUNCTION, *options: str) -> WorkerProcess:
    file = tmp_path / "mine.py"
    file.write_text(source)
    return bench.worker("--entry", f"{file}:train", "--exit-when-idle", "1", *options)


def test_results_and_failures_are_told_apart_and_no_trial_sees_another(bench: Bench, tmp_path: Path) -> None:
    hows = ["value", "raise", "memory", "nan", "exit", "metric", "value", "processes"]
    study_id = _study(bench, [{"x": 1.5 + place, "how": how} for place, how in enumerate(hows)], tmp_path)
    worker = _worker(bench, tmp_path)
    assert worker.wait() == 0, worker.said
    found = bench.trials(study_id)
    assert [(one.state, one.failure_kind) for one in found] == [
        ("completed", None),
        ("failed", "error"),
        ("failed", "oom"),
        ("failed", "diverged"),
        ("failed", "error"),
        ("failed", "error"),
        ("completed", None),
        ("completed", None),
    ]
    assert [found[0].metrics, found[6].metrics] == [{"score": 3.0}, {"score": 15.0}]
    assert found[7].metrics == {"score": 3.0 + signal.SIGTERM}, "what it starts can be terminated, and reads nothing"
    first, *trace = found[1].failure_message.splitlines()
    assert first == "NameError: name 'missing_name' is not defined"
    assert [line for line in trace if line.startswith("  File")] == [
        f'  File "{tmp_path}/mine.py", line 19, in train'
    ], "the traceback begins in the function"
    assert found[4].failure_message.splitlines()[0] == "the function called sys.exit(3)"
    assert "does not know the metric 'scor'; it knows score" in found[5].failure_message
    for one in (found[0], found[6]):
        assert "so many trials in this process: 1\n" in bench.log(one.id).text
    assert "NameError" in bench.log(found[1].id).text
    assert found[0].environment["entry"]["name"] == "mine.py:train"
    assert re.fullmatch("[0-9a-f]{64}", found[0].environment["entry"]["sha256"])
    assert found[0].peak_memory_bytes > 2**20


def test_a_trial_whose_process_and_whose_worker_are_killed_ends_as_if_nothing_had_happened(
    bench: Bench, tmp_path: Path
) -> None:
    study_id = _study(bench, [{"x": 0.5, "how": "epochs"}], tmp_path)
    worker = _worker(bench, tmp_path)
    # The first attempt is killed within epoch 3, the second with its worker within epoch 4.
    pid = int(wait_until((tmp_path / "0-1-3.at").exists) and (tmp_path / "0-1-3.at").read_text())
    wait_until(bench.reached(study_id, 2))
    os.kill(pid, signal.SIGKILL)
    wait_until(bench.is_in(study_id, "suggested"))
    bench.skip_backoff()
    wait_until((tmp_path / "0-2-4.at").exists)
    wait_until(bench.reached(study_id, 3))
    worker.signal(signal.SIGKILL)
    worker.wait()
    child = int((tmp_path / "0-2-4.at").read_text())
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "the function ends with its worker")
    bench.expire_leases()
    assert _worker(bench, tmp_path).wait() == 0
    trial = bench.trial(study_id)
    assert (trial.state, trial.attempt, trial.epochs_done) == ("completed", 3, EPOCHS)
    curve = {row.step: row.metrics["score"] for row in bench.measurements(trial.id)}
    assert curve == {epoch: 0.25 * epoch * (epoch + 1) for epoch in range(1, EPOCHS + 1)}
    assert "continues after epoch 3" in bench.log(trial.id).text
    assert trial.checkpoint.rpartition("/")[2].startswith("final-a0003-")


def test_sigterm_gives_the_trial_back_with_its_checkpoint(bench: Bench, tmp_path: Path) -> None:
    study_id = _study(bench, [{"x": 1.0, "how": "epochs"}], tmp_path)
    worker = _worker(bench, tmp_path)
    wait_until((tmp_path / "0-1-3.at").exists)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: "asked to stop" in worker.said)
    (tmp_path / "open").touch()
    assert worker.wait() == 0
    trial = bench.trial(study_id)
    assert (trial.state, trial.epochs_done) == ("suggested", 3)
    assert "e0003" in trial.checkpoint


def test_another_version_of_the_function_is_told(bench: Bench, tmp_path: Path) -> None:
    study_id = _study(bench, [{"x": 1.0, "how": "value"}, {"x": 2.0, "how": "value"}], tmp_path)
    assert _worker(bench, tmp_path, FUNCTION, "--max-trials", "1").wait() == 0
    again = _worker(bench, tmp_path, FUNCTION + "# changed\n")
    assert again.wait() == 0
    assert "the function is version" in again.said
    with bench.database.transaction() as connection:
        sentence = data_changed(connection, study_id)
    assert sentence is not None
    assert "trials were run with 2 versions of the function" in sentence


def test_a_function_that_cannot_be_imported_ends_the_worker_before_it_claims(bench: Bench, tmp_path: Path) -> None:
    study_id = _study(bench, [{"x": 1.0, "how": "value"}], tmp_path)
    worker = _worker(bench, tmp_path, "import nowhere\n")
    assert worker.wait() == 1
    assert "the function cannot be imported (ModuleNotFoundError: No module named 'nowhere')" in worker.said
    assert worker.said.count("Traceback") == 1, "that of the person's module, and none of ours"
    assert bench.trial(study_id).attempt == 0


def test_where_a_fork_is_not_safe_each_trial_imports_the_function(bench: Bench, tmp_path: Path) -> None:
    threads = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    study_id = _study(bench, [{"x": 1.0, "how": "value"}, {"x": 2.0, "how": "raise"}], tmp_path)
    worker = _worker(bench, tmp_path, threads + FUNCTION)
    assert worker.wait() == 0
    assert "since a fork would not be safe: its import started 1 thread" in worker.said
    assert [trial.state for trial in bench.trials(study_id)] == ["completed", "failed"]
