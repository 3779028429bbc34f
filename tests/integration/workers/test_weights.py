"""A study whose trials start from a file, through the service and a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.results.export import Export, build_export
from hpo.store import studies, trials
from models.weights.digest import sha256_of
from tests.unit.workers.tiny import BASE, tiny_config, tiny_task, without_timing
from workers.device.detection import cpu_device
from workers.errors import TrainingFailedError
from workers.retrain import TrainingResult, train_export
from workers.training.model import build_model
from workers.training.reproducibility import seed_everything

from .bench import GOOD, Bench

SEED = {"seed": 11}
FINE_TUNED: dict[str, Any] = {
    "weights": "start.pth",
    "freeze": 1,
    "unfreeze_every": 1,
    "batch_norm": "freeze_all_but_first",
    "layer_decay": 0.5,
    "head_lr_multiplier": 2.0,
    "ema": 0.6,
    "precise_bn": True,
}
FROM_FILE = {key: value for key, value in {**BASE, **SEED, **FINE_TUNED}.items() if key not in GOOD}


def start_file(root: Path, name: str = "start.pth", *, seed: int = 5) -> Path:
    """Return a new file with the weights of another training, of the same classes."""
    root.mkdir(parents=True, exist_ok=True)
    seed_everything(seed)
    torch.save(build_model(tiny_config(), num_classes=2).state_dict(), root / name)
    return root / name


def export(bench: Bench, study: str) -> Export:
    """Return the export of the only trial of a study."""
    with bench.database.transaction() as connection:
        found = studies.get(connection, study)
        record = trials.get(connection, found.id, 0)
        ran = trials.environment_of(connection, record.id)
    return build_export(
        study=study,
        spec=found.spec,
        trial=record,
        dataset_version=ran.dataset_version,
        environment=ran.environment,
        checkpoint=ran.checkpoint,
    )


def trained(bench: Bench, folder: Path, *, expected: dict[str, str] | None = None, **changes: object) -> TrainingResult:
    """Return what the configuration of GOOD reaches outside a study."""
    return train_export(
        {**BASE, **SEED, **GOOD, **changes},
        tiny_task(bench.videos, epochs=2),
        device=cpu_device(threads=1),
        folder=folder,
        cache_dir=bench.home / "cache",
        weights_roots=[bench.home / "weights"],
        weights=expected,
    )


def test_every_trial_starts_from_its_file(bench: Bench, tmp_path: Path) -> None:
    path = start_file(bench.home / "weights")
    study = bench.study("fine", [GOOD], task={"epochs": 2, "base": FROM_FILE})
    worker = bench.worker("--max-trials", "1")
    assert worker.wait() == 0, worker.said
    (trial,) = bench.trials(study)
    assert trial.state == "completed", trial.failure_message
    again = trained(bench, tmp_path / "again", **FINE_TUNED)
    assert without_timing(again.metrics) == without_timing(trial.metrics)
    from_scratch = trained(bench, tmp_path / "scratch", **{**FINE_TUNED, "weights": "none"})
    assert from_scratch.metrics["val_loss"] != again.metrics["val_loss"]
    assert "starts from start.pth (SHA-256" in worker.said
    log = (Path(trial.checkpoint).parent / "attempt-0001.log").read_text()
    assert "tensors loaded" in log
    (loaded,) = trial.weights
    assert (loaded["source"], loaded["sha256"]) == ("start.pth", sha256_of(path))

    exported = export(bench, "fine")
    assert {key: exported.config[key] for key in FINE_TUNED} == FINE_TUNED
    assert [used.sha256 for used in exported.weights] == [sha256_of(path)]
    wanted = {used.source: used.sha256 for used in exported.weights}
    start_file(bench.home / "weights", seed=6)
    with pytest.raises(TrainingFailedError, match=r"start\.pth of this machine has the SHA-256 .* put that file there"):
        trained(bench, tmp_path / "other", expected=wanted, **FINE_TUNED)


def test_a_worker_with_another_file_of_that_name_does_not_train(bench: Bench) -> None:
    path = start_file(bench.home / "weights")
    study = bench.study("two", [GOOD, {**GOOD, "lr": 0.01}], task={"epochs": 1, "base": FROM_FILE})
    worker = bench.worker("--max-trials", "1")
    assert worker.wait() == 0, worker.said
    first = sha256_of(path)
    start_file(path.parent, seed=6)
    sick = bench.worker("--max-trials", "1")
    assert sick.wait() == 0, sick.said
    one, two = bench.trials(study)
    assert (one.state, two.state, two.failure_kind) == ("completed", "suggested", None)
    assert f"has the SHA-256 {sha256_of(path)}, but the training is of start.pth with {first}" in sick.said
