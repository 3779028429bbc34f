"""Training on optical flow: both streams of a two-stream model, and flow as the only input of others."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data import Dataset, DatasetError
from data.store import Box
from hpo.spec.training import TrainingConfig
from models import InvalidModelError
from workers.reproducibility import Runtime
from workers.scoring import score
from workers.task import build_model, clip_spec, open_task
from workers.training import Trainer

from .tiny import BASE, tiny_task

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


class DisFlow:
    """DIS flow of a store's frames, kept in memory."""

    channels = 2

    def __init__(self, dataset: Dataset) -> None:
        self._fields = {clip.id: _flow(dataset.stores["rgb"].video(clip.id)) for clip in dataset.index.usable}  # type: ignore[attr-defined]  # the raw store has it

    def shape(self, id_: str) -> tuple[int, int, int]:
        count, height, width, _ = self._fields[id_].shape
        return count, height, width

    def read_into(self, id_: str, indices: np.ndarray, box: Box, target: np.ndarray) -> None:
        fields = self._fields[id_][indices]
        target[:] = fields[:, box.top : box.top + box.height, box.left : box.left + box.width]

    def __contains__(self, id_: object) -> bool:
        return id_ in self._fields

    def __len__(self) -> int:
        return len(self._fields)


def _flow(video: np.ndarray) -> np.ndarray:
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
    fields = np.stack([dis.calc(one, other, None) for one, other in pairwise(grey)])
    return np.clip(np.round((fields / 20 + 1) * 127.5), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def flowing(videos: Path, cache_dir: Path) -> Dataset:
    """The tiny set with optical flow."""
    opened = open_task(tiny_task(videos).dataset, cache_dir=cache_dir)
    opened.stores["flow"] = DisFlow(opened)
    return opened


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


def test_flow_tells_left_from_right(flowing: Dataset, runtime: Runtime) -> None:
    changes = {"model": "resnet18", "clip.modality": "flow", "clip.flow_pairs": 2}
    changes |= {"optimizer": "adamw", "lr": 0.003}
    trainer = trained(flowing, runtime, epochs=14, drop="model.flow_channels", **changes)
    assert trainer.model.settings.in_channels == 4
    assert trainer.curve[-1].metrics["val_top1"] >= 0.75


def test_a_model_of_pairs_needs_flow_that_was_prepared(dataset: Dataset, runtime: Runtime) -> None:
    with pytest.raises(DatasetError, match="the clips need flow, which the data set was opened without"):
        trained(dataset, runtime)


def test_channels_that_are_no_pairs_are_refused() -> None:
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
