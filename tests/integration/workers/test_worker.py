"""A worker from its first claim to its last report, when nothing goes wrong and when trials do."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import pytest

from data import DatasetSpec
from hpo.results.outcome import is_feasible
from hpo.service.data_versions import data_changed
from hpo.spec import METRICS
from hpo.spec.study import Constraint
from hpo.store import studies
from hpo.trial import StudyState
from tests.unit.workers.tiny import without_timing
from workers.device.detection import cpu_device
from workers.evaluation.measures import measure
from workers.evaluation.sealed_test import Evaluation, Opening, Views
from workers.retrain import TrainingResult

from .bench import EPOCHS, GOOD, Bench, wait_until

REPORTED = {name for name, metric in METRICS.items() if not metric.on_demand}


def test_a_whole_study_and_the_same_digits_outside_it(bench: Bench, reference: TrainingResult) -> None:
    points = [GOOD, {**GOOD, "lr": 0.2}, {**GOOD, "weight_decay": 0.01}]
    limits = ["latency_ms <= 100000", "batch_latency_p95_ms >= 0"]
    study = bench.study("whole", points, constraints=limits)
    worker = bench.worker("--max-trials", "3", "--name", "w")
    assert worker.wait() == 0, worker.said
    trials = bench.trials(study)
    assert [trial.state for trial in trials] == ["completed"] * 3
    for trial in trials:
        assert [row.step for row in bench.measurements(trial.id)] == list(range(1, EPOCHS + 1))
        assert set(trial.metrics) == REPORTED | {"latency_ms", "batch_latency_p95_ms"}
        assert all(row.metrics["latency_ms"] == trial.metrics["latency_ms"] for row in bench.measurements(trial.id))
        assert trial.dataset_version == reference.dataset_version
        assert trial.environment == reference.environment
        assert 50e6 < trial.peak_memory_bytes < 4e9
        assert trial.gpu_seconds > 0
        folder = Path(trial.checkpoint).parent
        assert [path.suffix for path in sorted(folder.iterdir())] == [".log", ".pt", ".jsonl"]
        lines = list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))
        assert [line.pop("epoch") for line in lines] == list(range(1, EPOCHS + 1))
        assert {name: lines[-1][name] for name in trial.metrics} == trial.metrics
        counted = bench.confusion(trial)
        right = sum(count for true, said, count in counted.cells if true == said)
        assert (counted.step, sum(counted.videos)) == (EPOCHS, trial.metrics["val_clips"])
        assert right / sum(counted.videos) == trial.metrics["val_top1"]
        printed = bench.log(trial.id).text
        assert printed == (folder / "attempt-0001.log").read_text()
        assert '"torch"' in printed
        assert f"epoch {EPOCHS}/{EPOCHS}" in printed
    assert without_timing(trials[0].metrics) == without_timing(reference.metrics)
    assert len({trial.metrics["val_loss"] for trial in trials}) == 3
    with bench.database.transaction() as connection:
        spec = studies.get(connection, "whole").spec
    assert all(is_feasible(spec, trial.metrics) for trial in trials)
    tight = spec.model_copy(update={"constraints": [Constraint.model_validate("latency_ms <= 0.0001")]})
    assert not any(is_feasible(tight, trial.metrics) for trial in trials)
    assert worker.said.count("claimed") == 3
    assert worker.said.count(f"epoch {EPOCHS}/{EPOCHS}") == 3
    assert "Traceback" not in worker.said


@pytest.mark.slow
def test_a_file_that_changes_between_two_trials_is_said(bench: Bench, tmp_path: Path) -> None:
    bench.videos = shutil.copytree(bench.videos, tmp_path / "videos")
    study = bench.study("changed", [GOOD, {**GOOD, "lr": 0.2}])
    assert bench.worker("--max-trials", "1").wait() == 0
    repaired, good = sorted(bench.videos.rglob("*.avi"))[:2]
    shutil.copy(good, repaired)
    second = bench.worker("--max-trials", "1", "--name", "w")
    assert second.wait() == 0
    assert "and another trial was trained on" in second.said
    versions = [trial.dataset_version for trial in bench.trials(study)]
    assert versions[0] != versions[1]
    assert all(version[:12] in second.said for version in versions)
    caches = sorted(folder.name for folder in bench.home.rglob("ucf101-*-raw"))
    assert len(caches) == 2
    with bench.database.transaction() as connection:
        assert "2 versions of the data set" in (data_changed(connection, study) or "")


def test_final_weights_are_scored_on_the_sealed_test_list(bench: Bench, reference: TrainingResult) -> None:
    progress: list[tuple[int, int]] = []
    checkpoint = reference.checkpoint
    assert checkpoint is not None
    test = Evaluation.prepare(
        checkpoint,
        DatasetSpec(root=str(bench.videos), short_side=32),
        cache_dir=checkpoint.parents[1] / "cache",
        device=cpu_device(threads=1),
    )
    scores = test.test(
        Opening(reason="a test of the scoring"),
        Views(clips=2, crops=3),
        progress=lambda done, total: progress.append((done, total)),
    )
    found = measure(scores)
    assert scores.clips.shape == (8, 2, 2)
    assert found.interval.low <= found.top1 <= found.interval.high
    assert math.isclose(found.top1 * 8, round(found.top1 * 8))
    assert test.same_dataset
    assert progress[-1] == (8, 8)
    record = (checkpoint.parents[1] / "cache" / "unsealed.jsonl").read_text()
    assert "a test of the scoring" in record


def test_failing_trials_are_reported_by_kind_and_the_worker_continues(bench: Bench) -> None:
    wild = {"lr": 100.0, "weight_decay": 10.0, "model.beta_inv": 4}
    study = bench.study("failing", [{**GOOD, "model.beta_inv": 3}, wild, GOOD], task={"epochs": 5})
    slow = bench.study("slow", [GOOD], task={"epochs": 5000, "timeout_minutes": 0.005})
    worker = bench.worker("--max-trials", "4")
    assert worker.wait() == 0, worker.said
    invalid, diverged, good = bench.trials(study)
    assert (invalid.state, invalid.failure_kind) == ("failed", "invalid")
    assert "beta_inv = 3 does not divide width = 8" in invalid.failure_message
    assert "Traceback" not in invalid.failure_message
    for trial, error in ((invalid, "beta_inv = 3 does not divide"), (diverged, "loss became")):
        printed = bench.log(trial.id).text
        assert "Traceback" in printed, "for whoever has to find out"
        assert error in printed
    assert (diverged.state, diverged.failure_kind) == ("failed", "diverged")
    assert "loss became" in diverged.failure_message
    assert good.state == "completed"
    late = bench.trial(slow)
    assert (late.state, late.failure_kind) == ("failed", "timeout")
    assert "limit of 0.005 minutes" in late.failure_message


def test_a_missing_data_set_pauses_the_study_at_once_and_fails_no_trial(bench: Bench) -> None:
    missing = {"dataset": {"root": str(bench.home / "nowhere")}}
    study = bench.study("missing", [GOOD] * 4, task=missing)
    worker = bench.worker("--exit-when-idle", "1")
    assert worker.wait() == 0, worker.said
    trials = bench.trials(study)
    assert [trial.state for trial in trials] == ["suggested"] * 4
    assert [trial.attempt for trial in trials] == [1, 0, 0, 0]
    with bench.database.transaction() as connection:
        from hpo.store import studies

        row = studies.get(connection, "missing")
    assert row.state is StudyState.PAUSED
    folder = bench.home / "nowhere"
    assert row.state_reason == f"no worker has the files: there is no folder {folder}; give the folder of the data set"


def test_an_unknown_token_ends_the_worker_with_a_sentence(bench: Bench) -> None:
    bench.token = "hpo_not_a_token"  # noqa: S105 - which is the point
    worker = bench.worker()
    assert worker.wait() == 5
    assert worker.said.splitlines()[-1].startswith("hpo-worker: the API at ")
    assert "does not know this token" in worker.said


def test_an_unknown_study_ends_the_worker_with_a_sentence(bench: Bench) -> None:
    worker = bench.worker("--study", "nosuch")
    assert worker.wait() == 1
    assert "nosuch" in worker.said.splitlines()[-1]
    assert "Traceback" not in worker.said


def test_sigterm_ends_an_idle_worker_at_once(bench: Bench) -> None:
    worker = bench.worker()
    wait_until(lambda: "asking" in worker.said and worker.children())
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
