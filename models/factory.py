"""Make a model from its name."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .card import ModelSettings
from .catalogue import model_settings
from .video_model import VideoModel
from .weights.load import load_weights


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    dropout: float | None = None,
    weights: str | Path | Mapping[str, str | Path] | None = None,
    **hparams: Any,
) -> VideoModel:
    """Build the model called `name`, in float32 on the CPU, in training mode.

    It takes clips (N, in_channels, T, H, W) and returns logits (N, num_classes). `dropout` is the
    probability before the classifier (None: the card's); `hparams` are the card's own, each at its
    default unless given. `weights` is a file holding a state dict, or one per stream, such as
    ``{"spatial": ..., "temporal": ...}``; see :func:`load_weights`. Without it the parameters are
    drawn from torch's global generator.

    Raises UnknownModelError, InvalidModelError or WeightsError.
    """
    settings = model_settings(name, num_classes=num_classes, in_channels=in_channels, dropout=dropout, hparams=hparams)
    model = build_model(settings)
    if isinstance(weights, Mapping):
        for stream, path in weights.items():
            load_weights(model, path, stream=stream)
    elif weights is not None:
        load_weights(model, weights)
    return model


def build_model(settings: ModelSettings) -> VideoModel:
    """Build the model of settings that are checked already, as :func:`create_model` does."""
    model = pkgutil.resolve_name(settings.info.builder)(settings)
    if not isinstance(model, VideoModel):
        raise TypeError(f"{settings.info.builder} made a {type(model).__name__}, not a VideoModel")
    return model.train()
