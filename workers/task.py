"""From a configuration to loaders: the one place where the study's words become those of `data` and `models`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from data import AugmentSpec, ClipLoader, ClipSpec, Dataset, DatasetSpec, open_dataset
from data.progress import Progress
from hpo.spec.study import DatasetConfig
from hpo.spec.training import TrainingConfig
from models import VideoModel, create_model, model_info, model_settings


def open_task(dataset: DatasetConfig, *, cache_dir: Path, progress: Progress | None = None) -> Dataset:
    """Open the data set of a study, preparing it first if nobody has.

    Raises:
        data.DatasetError: with a sentence that says what to do.
    """
    spec = DatasetSpec(
        name=dataset.name,
        root=dataset.root,
        split=dataset.split,
        validation=dataset.validation,
        short_side=dataset.short_side,
    )
    return open_dataset(spec, cache_dir=cache_dir, progress=progress)


def clip_spec(config: TrainingConfig) -> ClipSpec:
    """Give the clips that the configuration's model sees, normalised as its card says."""
    card = model_info(config.model).clip
    clip = config.clip
    return ClipSpec(frames=clip.frames, stride=clip.stride, size=clip.size, mean=card.mean, std=card.std)


def build_model(config: TrainingConfig, *, num_classes: int) -> VideoModel:
    """Build the configuration's model; its weights come from torch's global generator.

    Raises:
        models.ModelError: no such model, or it cannot be built so.
    """
    settings = model_settings(
        config.model, num_classes=num_classes, dropout=config.dropout, hparams=config.hparams
    )  # refuses what is no option of the model, such as `num_classes` or `weights`
    options: dict[str, Any] = dict(settings.hparams)
    return create_model(config.model, num_classes=num_classes, dropout=config.dropout, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaders:
    """What a run trains and validates on."""

    train: ClipLoader
    validation: ClipLoader

    @classmethod
    def of(cls, dataset: Dataset, config: TrainingConfig, device: torch.device) -> Self:
        """Make the loaders of one run."""
        clip, wanted = clip_spec(config), config.augment
        augment = AugmentSpec(
            scale_min=wanted.scale_min, flip=wanted.flip, brightness=wanted.jitter, contrast=wanted.jitter
        )
        return cls(
            train=dataset.train_loader(
                clip=clip, augment=augment, batch_size=config.batch_size, seed=config.seed, device=device
            ),
            validation=dataset.validation_loader(clip=clip, batch_size=config.batch_size, device=device),
        )
