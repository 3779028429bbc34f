"""Every recipe builds its model as it is, and trains for an epoch with the smallest clips and networks it takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from data import Dataset, DatasetSpec, open_dataset
from hpo.spec import TrainingConfig
from hpo.spec.recipes import list_recipes, recipe
from models import model_info
from workers.training.model import build_model
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

SMALL: dict[str, Any] = {"width": 8, "head_width": 8, "table_frames": 4, "table_size": 32, "flow_channels": 4}
"""Options of models, as small as they may be."""


@pytest.fixture(scope="module")
def flowing(videos: Path, cache_dir: Path) -> Dataset:
    return open_dataset(DatasetSpec(root=str(videos), short_side=32, flow="dis"), cache_dir=cache_dir)


def _shrunk(name: str) -> TrainingConfig:
    """Return a recipe with few frames, pixels and channels; all that is not a size stays."""
    base = dict(recipe(name).base)
    info = model_info(base["model"])
    options = {f"model.{key}": value for key, value in SMALL.items() if key in info.defaults()}
    least = int(base.get("model.alpha", info.defaults().get("alpha", 4)))
    sizes = {"clip.frames": least, "clip.stride": 1, "clip.size": max(info.min_size, 32), "batch_size": 4}
    sizes |= {"clip.test_size": 48} if "clip.test_size" in base else {}
    flow = {"clip.flow_pairs": 1} if "clip.flow_pairs" in base else {}
    return TrainingConfig.from_flat({**base, **options, **sizes, **flow})


SIBLINGS = {"inception_rgb", "slowfast_ucf101", "slowonly_ucf101", "tsn_something", "videomae_ssv2"}
"""Recipes that differ from a quick one in numbers alone."""
CASES = [pytest.param(name, marks=pytest.mark.slow) if name in SIBLINGS else name for name in list_recipes()]


@pytest.mark.parametrize("name", CASES)
def test_an_epoch_of_every_recipe_ends_with_a_score(name: str, flowing: Dataset, runtime: Runtime) -> None:
    config = _shrunk(name)
    trainer = Trainer(config, epochs=2, dataset=flowing, runtime=runtime)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.run(interrupted=lambda: trainer.epoch == 1, epoch_done=lambda _: None)
    (result,) = trainer.curve
    assert math.isfinite(result.metrics["train_loss"])
    assert 0 <= result.metrics["val_top1"] <= 1
    moved = {key for key, value in before.items() if not torch.equal(value, trainer.model.state_dict()[key])}
    assert {f"{head}.weight" for head in trainer.model.classifier_names} <= moved
    running = [key for key in moved if key.endswith("running_mean")]
    assert not running if config.batch_norm == "freeze" else running or "videomae" in name


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_builds_its_model(name: str) -> None:
    with torch.device("meta"):
        model = build_model(TrainingConfig.from_flat(recipe(name).base), num_classes=400)
    assert model.name == recipe(name).base["model"]
    assert sum(parameter.numel() for parameter in model.parameters()) > 20e6
