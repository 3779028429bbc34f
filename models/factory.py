"""Creating a model by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .catalogue import model_settings
from .video_model import VideoModel, build_model
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
    """Return a new model called `name`, in float32 on the CPU, in training mode.

    It takes clips (N, in_channels, T, H, W) and returns logits (N, num_classes). `dropout` is the
    probability before the classifier (None: the card's). `hparams` are hyperparameters of the card; those not
    given have their defaults. `weights` is a file with a state dict, or one file per stream, such as
    ``{"spatial": ..., "temporal": ...}``; see :func:`load_weights`. What was loaded is in the model's
    `weights_reports`. Without it the parameters are drawn from torch's global generator.

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
