"""Training on optical flow: both streams of a two-stream model, and flow as the only input of others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data import Dataset, DatasetError, DatasetSpec, open_dataset
from hpo.spec import TrainingConfig
from models import InvalidModelError
from workers.training.inputs import clip_spec
from workers.training.model import build_model
from workers.training.reproducibility import Runtime
from workers.training.scoring import score
from workers.training.trainer import Trainer

from ..tiny import BASE

PAIR: dict[str, Any] = {
    **{key: value for key, value in BASE.items() if not key.startswith("model")},
    "model": "two_stream_resnet18",
    "model.width": 8,
    "model.flow_channels": 4,
    "clip.frames": 2,
    "clip.stride": 3,
    "clip.size": 32,
    "augment.flip": 0.0,  # which makes one class the other
    "augment.scale_min": 0.8,
    "dropout": 0.0,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def flowing(videos: Path, cache_dir: Path) -> Dataset:
    """The tiny set with optical flow."""
    return open_dataset(DatasetSpec(root=str(videos), short_side=32, flow="dis"), cache_dir=cache_dir)


def trained(dataset: Dataset, runtime: Runtime, *, epochs: int = 1, drop: str = "", **changes: Any) -> Trainer:
    flat = {key: value for key, value in {**PAIR, **changes}.items() if key != drop}
    config = TrainingConfig.from_flat(flat)
    trainer = Trainer(config, epochs=epochs, dataset=dataset, runtime=runtime)
    assert trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
    return trainer


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "stmulnet_r18", "clip.sampling": "segments", "clip.frames": 3},
        {"augment.cutmix_alpha": 1.0, "augment.randaugment_n": 1, "augment.erase": 0.5, "augment.flip": 0.5},
    ],
)
def test_a_two_stream_model_trains_and_is_scored(flowing: Dataset, runtime: Runtime, changes: dict[str, Any]) -> None:
    trainer = trained(flowing, runtime, **changes)
    (result,) = trainer.curve
    assert all(math.isfinite(value) for value in result.metrics.values())
    loader = flowing.validation_loader(clip=clip_spec(trainer.config), batch_size=4, views=2, crops=3)
    found = score(trainer.model, loader, device=CPU, precision="fp32", most_clips=5)
    assert found.videos == loader.num_clips == 4


def test_a_model_on_flow_learns_to_distinguish_left_from_right(flowing: Dataset, runtime: Runtime) -> None:
    changes = {"model": "resnet18", "clip.modality": "flow", "clip.flow_pairs": 2}
    changes |= {"optimizer": "adamw", "lr": 0.003}
    trainer = trained(flowing, runtime, epochs=14, drop="model.flow_channels", **changes)
    assert trainer.model.settings.in_channels == 4
    assert trainer.curve[-1].metrics["val_top1"] >= 0.75


def test_a_model_of_pairs_needs_flow_that_was_prepared(dataset: Dataset, runtime: Runtime) -> None:
    with pytest.raises(DatasetError, match="the clips need flow, which the data set was opened without"):
        trained(dataset, runtime)


def test_an_odd_number_of_flow_channels_is_refused() -> None:
    config = TrainingConfig.from_flat({**PAIR, "model.flow_channels": 5})
    with pytest.raises(InvalidModelError, match="flow_channels = 5 is odd"):
        clip_spec(config)


def test_the_clips_are_those_that_the_model_wants() -> None:
    pair = clip_spec(TrainingConfig.from_flat(PAIR))
    assert (pair.inputs, pair.flow_pairs, pair.stack) == (("rgb", "flow"), 2, 1)
    flat = {"model": "resnet18", "model.seq_len": 3, "clip.frames": 9, "clip.gap": 4, "clip.modality": "flow"}
    config = TrainingConfig.from_flat({**flat, "clip.sampling": "segments", "model.width": 4})
    alone = clip_spec(config)
    assert (alone.inputs, alone.flow_pairs, alone.stack, alone.gap) == (("flow",), 5, 3, 4)
    model = build_model(config, num_classes=2)
    assert model(torch.zeros(1, 10, 9, 32, 32)).shape == (1, 2)


PICTURES = {
    "model": "resnet18",
    "model.width": 8,
    "batch_size": 6,
    "clip.frames": 1,
    "clip.stride": 1,
    "clip.size": 32,
    "augment.crop": "corner",
    "lr": 0.02,
    "dropout": 0.0,
}


def test_an_image_classifier_is_trained_on_clips_of_one_frame(tmp_path: Path, runtime: Runtime) -> None:
    rng = np.random.default_rng(0)
    for name, channel in (("red", 2), ("blue", 0)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(12):
            picture = rng.integers(0, 100, (40, 48, 3), dtype=np.uint8)
            picture[..., channel] += 120
            cv2.imwrite(str(tmp_path / "set" / name / f"{number:02d}.png"), picture)
    config = DatasetSpec(name="auto", root=str(tmp_path / "set"), validation="random", short_side=32)
    opened = open_dataset(config, cache_dir=tmp_path / "cache")
    trainer = Trainer(TrainingConfig.from_flat(PICTURES), epochs=12, dataset=opened, runtime=runtime)
    assert trainer.run(interrupted=lambda: False, epoch_done=lambda _: None)
    assert trainer.curve[-1].metrics["val_top1"] == 1.0
