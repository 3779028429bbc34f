"""From a configuration to data loaders: what the model's card adds to the clips that the study describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from data import ClipLoader, ClipSpec, Dataset
from hpo.spec import TrainingConfig
from models import model_info, resolve_hparams

from .model import model_streams
from .parallel import ALONE, World


def clip_spec(config: TrainingConfig) -> ClipSpec:
    """Return the clips that the configuration's model sees, RGB normalised as its card says.

    Raises:
        models.ModelError: no such model or option, or its number of flow channels is odd.
    """
    card = model_info(config.model)
    options = resolve_hparams(card, config.hparams)
    streams, pairs = model_streams(config, options)
    return ClipSpec(
        **{**dict(config.clip), "flow_pairs": pairs},
        stack=int(options.get("seq_len", 1)),
        inputs=streams,
        mean=card.clip.mean,
        std=card.clip.std,
    )


def input_shapes(config: TrainingConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape (C, T, H, W) of each input of one clip, as the configuration's model is scored on."""
    clip = clip_spec(config).for_evaluation()
    channels = {"rgb": 3, "flow": 2 * clip.flow_pairs}
    return {name: (channels[name], clip.frames, clip.size, clip.size) for name in clip.inputs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaders:
    """What a run trains and validates on."""

    train: ClipLoader
    validation: ClipLoader

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        config: TrainingConfig,
        device: torch.device,
        world: World = ALONE,
        *,
        readers: int | None = None,
    ) -> Self:
        """Return the loaders of one run: of several ranks, each trains on its share of every batch.

        Args:
            readers: threads that read clips for a GPU.
        """
        clip = clip_spec(config)
        return cls(
            train=dataset.train_loader(
                clip=clip,
                augment=config.augment,
                batch_size=config.batch_size,
                seed=config.seed,
                share=world.share,
                device=device,
                readers=readers,
            ),
            validation=dataset.validation_loader(
                clip=clip, batch_size=config.batch_size, device=device, readers=readers
            ),
        )
