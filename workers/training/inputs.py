"""From a configuration to loaders: the one place where the study's words become those of `data` and `models`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from data import AugmentSpec, ClipLoader, ClipSpec, Dataset, DatasetSpec, open_dataset
from data.progress import Progress
from data.specs import Stream
from hpo.spec.dataset import DatasetConfig
from hpo.spec.training import TrainingConfig
from models import InvalidModelError, VideoModel, create_model, model_info, model_settings, resolve_hparams


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
    inputs, pairs = _streams(config, options)
    return ClipSpec(
        frames=clip.frames,
        stride=clip.stride,
        size=clip.size,
        sampling=clip.sampling,
        stack=int(options.get("seq_len", 1)),
        gap=clip.gap,
        padding=clip.padding,
        inputs=inputs,
        flow_pairs=pairs,
        flow_centring=clip.flow_centring,
        mean=card.clip.mean,
        std=card.clip.std,
    )


def _streams(config: TrainingConfig, options: Mapping[str, Any]) -> tuple[tuple[Stream, ...], int]:
    """Return what a clip consists of, and the flow fields of one frame."""
    if len(model_info(config.model).inputs) == 1:
        return (config.clip.modality,), config.clip.flow_pairs
    pairs, rest = divmod(int(options["flow_channels"]), 2)
    if rest:
        raise InvalidModelError(
            f"{config.model}: flow_channels = {options['flow_channels']} is odd; flow has an x and a y of each pair"
        )
    return ("rgb", "flow"), pairs


def build_model(config: TrainingConfig, *, num_classes: int) -> VideoModel:
    """Build the configuration's model; its weights come from torch's global generator.

    Raises:
        models.ModelError: no such model, or it cannot be built so.
    """
    settings = model_settings(
        config.model, num_classes=num_classes, dropout=config.dropout, hparams=config.hparams
    )  # refuses what is no option of the model, such as `num_classes` or `weights`
    options: dict[str, Any] = dict(settings.hparams)
    inputs, pairs = _streams(config, options)
    return create_model(
        config.model,
        num_classes=num_classes,
        in_channels=2 * pairs if inputs == ("flow",) else 3,
        dropout=config.dropout,
        **options,
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
