"""From a configuration to data loaders: the one place where the words of a study become those of `data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from data import AugmentSpec, ClipLoader, ClipSpec, Dataset, DatasetSpec, open_dataset
from data.progress import Progress
from hpo.spec import DatasetConfig, TrainingConfig
from models import model_info, resolve_hparams

from .model import model_streams


def open_task(dataset: DatasetConfig, *, cache_dir: Path, progress: Progress | None = None) -> Dataset:
    """Open the data set of a study, preparing it first if nobody has.

    Raises:
        data.DatasetError: with a sentence that says what to do.
    """
    spec = DatasetSpec(**dataset.model_dump())  # the same names on both sides
    return open_dataset(spec, cache_dir=cache_dir, progress=progress)


def clip_spec(config: TrainingConfig) -> ClipSpec:
    """Return the clips that the configuration's model sees, RGB normalised as its card says.

    Raises:
        models.ModelError: no such model or option, or its flow channels are no pairs.
    """
    card = model_info(config.model)
    options = resolve_hparams(card, config.hparams)
    clip = config.clip
    streams, pairs = model_streams(config, options)
    return ClipSpec(
        frames=clip.frames,
        stride=clip.stride,
        size=clip.size,
        sampling=clip.sampling,
        stack=int(options.get("seq_len", 1)),
        gap=clip.gap,
        padding=clip.padding,
        inputs=streams,
        flow_pairs=pairs,
        flow_centring=clip.flow_centring,
        mean=card.clip.mean,
        std=card.clip.std,
    )


def augment_spec(config: TrainingConfig) -> AugmentSpec:
    """Return the random changes of the configuration's training clips."""
    wanted = config.augment.model_dump()
    jitter = wanted.pop("jitter")
    return AugmentSpec(brightness=jitter, contrast=jitter, **wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaders:
    """What a run trains and validates on."""

    train: ClipLoader
    validation: ClipLoader

    @classmethod
    def of(cls, dataset: Dataset, config: TrainingConfig, device: torch.device) -> Self:
        """Make the loaders of one run."""
        clip = clip_spec(config)
        return cls(
            train=dataset.train_loader(
                clip=clip,
                augment=augment_spec(config),
                batch_size=config.batch_size,
                seed=config.seed,
                device=device,
            ),
            validation=dataset.validation_loader(clip=clip, batch_size=config.batch_size, device=device),
        )
