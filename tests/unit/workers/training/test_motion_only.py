"""The generated set through the whole of training: order alone tells its classes apart."""

from __future__ import annotations

import pytest
import torch

from data import Dataset, DatasetSpec, open_dataset
from data.synthetic.dataset import make_demo_dataset
from hpo.spec import TrainingConfig
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLASSES = ("SlideLeft", "SlideRight", "SlideUp", "SlideDown")
COMMON = {
    "batch_size": 8,
    "clip.frames": 8,
    "clip.stride": 1,
    "clip.size": 32,
    "augment.flip": 0.0,
    "optimizer": "adamw",
    "lr": 0.003,
    "dropout": 0.0,
    "weight_decay": 0.01,
}


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four directions, 8 groups of 8 clips: 160 videos to train on, 32 to validate."""
    folder = tmp_path_factory.mktemp("moving")
    root = make_demo_dataset(
        folder / "videos", classes=CLASSES, groups=8, clips_per_group=8, frames=(12, 16), size=(48, 48), seed=2
    )
    return open_dataset(DatasetSpec(root=str(root), short_side=48), cache_dir=folder / "cache")


def validation_accuracies(dataset: Dataset, model: dict[str, object], *, epochs: int) -> list[float]:
    config = TrainingConfig.from_flat({**COMMON, **model})
    runtime = Runtime(device=torch.device("cpu"), threads=1)
    trainer = Trainer(config, epochs=epochs, dataset=dataset, runtime=runtime)
    assert trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
    return [result.metrics["val_top1"] for result in trainer.curve]


def test_a_network_of_single_frames_stays_at_chance(moving: Dataset) -> None:
    accuracies = validation_accuracies(moving, {"model": "tsn_resnet18", "model.width": 16}, epochs=20)
    # 32 videos seen 8 times: a guesser is at 0.25, give or take 0.08.
    assert sum(accuracies[-8:]) / 8 < 0.42


def test_a_network_of_space_and_time_learns(moving: Dataset) -> None:
    accuracies = validation_accuracies(moving, {"model": "r3d_18", "model.width": 16}, epochs=20)
    assert sum(accuracies[-4:]) / 4 > 0.6
