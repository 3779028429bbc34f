"""`hpo train`: which device is used, and what is compared with the export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hpo.cli.app import app
from hpo.cli.exported import device_of
from hpo.errors import SetupError, SpecError
from hpo.results.export import Export, build_export, dump_export, load_export
from hpo.spec import parse_spec
from hpo.trial import Params, TrialRecord, TrialState
from workers.device import detection

from ..spec.specs import VALID
from .exports import Bench

PARAMS: Params = {"lr": 0.01, "weight_decay": 1e-05, "model": "slowfast_r50_4x16", "model.alpha": 8}


def _export(folder: Path, *, checkpoint: str | None = "best.pt", last_epochs: int = 1, **environment: Any) -> Path:
    trial = TrialRecord(
        id=11,
        number=7,
        state=TrialState.COMPLETED,
        params=PARAMS,
        metrics={"val_top1": 0.5},
        epochs_done=40,
        weights=(STARTED,),
    )
    export = build_export(
        study="slowfast-ucf101",
        spec=parse_spec({**VALID, "objectives": [{"metric": "val_top1", "last_epochs": last_epochs}]}),
        trial=trial,
        dataset_version=None,
        environment=environment,
        checkpoint=checkpoint,
    )
    file = folder / "best.yaml"
    file.write_text(dump_export(export, form="yaml"))
    return file


NONE = {"count": 0, "first": []}
STARTED = {
    "source": "k400.pth",
    "sha256": "1" * 64,
    "layout": "PySlowFast",
    "loaded": 318,
    "adapted": NONE,
    "reset": NONE,
    "kept": NONE,
    "dropped": NONE,
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_a_file_that_is_not_an_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: x\n")
    result = run("train", tmp_path / "study.yaml")
    assert isinstance(result.exception, SpecError)
    assert "is not an export" in str(result.exception)


@pytest.mark.parametrize(
    ("environment", "asked", "expected"),
    [
        ({"device": "cpu", "threads": 3}, {}, ("cpu", 3)),
        ({"device": "cpu", "threads": 3}, {"threads": 2}, ("cpu", 2)),
        ({}, {}, ("cpu", None)),
        ({"device": "cuda", "threads": 4}, {"cpu": True}, ("cpu", 4)),
        ({"device": "cuda", "threads": 4}, {}, ("gpu", 0, 4, False)),
        ({"device": "cuda", "deterministic": True}, {"gpu": 2}, ("gpu", 2, None, True)),
        ({"device": "cpu"}, {"gpu": 1}, ("gpu", 1, None, False)),
    ],
)
def test_without_a_wish_the_device_is_the_one_of_the_trial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, Any], asked: dict[str, Any], expected: Any
) -> None:
    monkeypatch.setattr(detection, "cpu_device", lambda *, threads: ("cpu", threads))
    monkeypatch.setattr(
        detection, "gpu_device", lambda index, *, threads, deterministic, **_: ("gpu", index, threads, deterministic)
    )
    exported = load_export(_export(tmp_path, **environment))
    assert isinstance(exported, Export)
    assert device_of(exported, **asked) == expected


def test_a_cpu_and_a_gpu_at_once_are_refused(tmp_path: Path) -> None:
    result = run("train", _export(tmp_path), "--cpu", "--gpu", "0")
    assert isinstance(result.exception, SetupError)
    assert "--gpu" in str(result.exception)
    assert "--cpu" in str(result.exception)


@pytest.mark.parametrize(
    ("epochs", "last_epochs", "verdict"),
    [
        ([0.75, 0.5], 1, "0.5 (the same)"),
        ([0.5, 0.25], 1, "0.25 (exported: 0.5)"),
        ([0.9, 0.75, 0.25], 2, "0.5 (the same)"),
    ],
)
def test_training_again_is_compared_with_the_export(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, epochs: list[float], last_epochs: int, verdict: str
) -> None:
    asked: dict[str, Any] = {}

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Done:
        metrics: dict[str, float]
        curve: dict[int, dict[str, float]]
        checkpoint: str = "/c/last.pt"

    def train_export(*_: object, **options: Any) -> Done:
        asked.update(options)
        curve = {step: {"val_top1": value} for step, value in enumerate(epochs, start=1)}
        return Done(metrics=curve[len(epochs)], curve=curve)

    monkeypatch.setattr("workers.retrain.train_export", train_export)
    exported = _export(tmp_path, last_epochs=last_epochs, memory_plan={"micro_batch": 2}, compiled="blocks")
    result = run("--home", tmp_path, "train", exported, "--cpu", "--threads", "1")
    assert result.exit_code == 0, result.exception
    assert f"val_top1 = {verdict}" in result.output
    assert "training trial 7 of slowfast-ucf101 on" in result.output
    assert (asked["folder"], asked["stop_after"], asked["resume"]) == (tmp_path / "best.train", None, False)
    assert asked["cache_dir"] == tmp_path / "cache"
    assert (asked["memory_plan"], asked["compiled"]) == ({"micro_batch": 2}, "blocks")
    assert (list(asked["weights_roots"]), asked["weights"]) == ([tmp_path / "weights"], {"k400.pth": "1" * 64})
    run("--home", tmp_path, "train", tmp_path / "best.yaml", "--cpu", "--threads", "1", "--weights-root", tmp_path)
    assert asked["weights_roots"] == [tmp_path]


def test_another_training_is_told_from_a_repetition(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Done:
        metrics: dict[str, float]
        curve: dict[int, dict[str, float]]
        checkpoint: str = "/c/last.pt"

    def train_export(config: dict[str, Any], task: Any, **options: Any) -> Done:
        asked.append((config, task, options))
        return Done(metrics={"val_top1": 0.5}, curve={1: {"val_top1": 0.5}})

    monkeypatch.setattr("workers.retrain.train_export", train_export)
    file = _export(tmp_path)
    common = ("--home", tmp_path, "train", file, "--cpu", "--threads", "1")
    same = run(*common, "--root", tmp_path / "videos")
    other = run(*common, "--epochs", "7", "--seed", "42")
    run(*common, "--root", "s3://bucket/videos")
    assert "val_top1 = 0.5 (the same)" in same.output
    assert "val_top1 = 0.5 (exported, of another training: 0.5)" in other.output
    (moved, at, _), (config, task, options), (_, remote, _) = asked
    assert remote.dataset.root == "s3://bucket/videos"
    original = load_export(file)
    assert (moved, at.dataset.root) == (original.config, str(tmp_path / "videos"))
    assert (task.epochs, config["seed"], options["stop_after"]) == (7, 42, None)
    assert {**config, "seed": original.seed} == original.config
    assert task.dataset == original.task.dataset  # type: ignore[attr-defined] # it is of videos


def test_a_refit_trains_on_the_validation_videos_and_can_be_evaluated(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path)
    file = bench.export(tmp_path / "best.yaml")
    seen = bench.run("train", file, "--refit", "--cpu", "--threads", "1", "--epochs", "1")
    assert seen.exit_code == 0, seen.exception
    assert "no validation score is shown" in seen.stdout
    assert "val_top1 =" not in seen.stdout
    assert "train_loss" in seen.stdout
    assert "val_" not in seen.stdout, "they say nothing of videos that are trained on"
    refitted = load_export(tmp_path / "best.refit" / "best.yaml")
    assert refitted.checkpoint is not None
    assert refitted.objectives == load_export(file).objectives
    scored = bench.run("evaluate", tmp_path / "best.refit" / "best.yaml", "--final", "--cpu", "--clips", "1")
    assert scored.exit_code == 0, scored.exception
    assert (refitted.refit, refitted.state, refitted.epochs_done) == (True, "completed", 1)

    refit, seen_before = tmp_path / "best.refit" / "best.yaml", ("--cpu", "--clips", "1")
    for command in (("evaluate", refit, "--validation"), ("fuse", file, refit), ("fuse", refit, file, "--weights=1,1")):
        refused = bench.run(*command, *seen_before)
        assert isinstance(refused.exception, SetupError)
        assert "trained on the validation videos as well" in str(refused.exception)
    unmarked = refit.with_name("unmarked.yaml")
    unmarked.write_text(refit.read_text().replace("refit: true\n", ""))
    by_checkpoint = bench.run("evaluate", unmarked, "--validation", *seen_before)
    assert "the checkpoint is a refit" in str(by_checkpoint.exception)
    assert bench.run("fuse", file, refit, "--weights=1,1", "--final", "--again", *seen_before).exit_code == 0
    assert bench.run("export", refit, "--format", "safetensors").exit_code == 0
    assert "trained on the validation videos as well" in refit.with_suffix(".safetensors.md").read_text()


def test_a_refit_never_replaces_the_file_that_it_is_made_from(tmp_path: Path) -> None:
    file = _export(tmp_path)
    before = file.read_text()
    refused = run("--home", tmp_path, "train", file, "--refit", "--cpu", "-o", tmp_path)
    assert isinstance(refused.exception, SetupError)
    assert "would overwrite" in str(refused.exception)
    assert file.read_text() == before
