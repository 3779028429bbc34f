"""From a configuration to the model that is trained, and to what this model sees of a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.specs import Stream
from hpo.spec import TrainingConfig
from models import InvalidModelError, VideoModel, create_model, model_info, model_settings


def build_model(config: TrainingConfig, *, num_classes: int) -> VideoModel:
    """Return the configuration's model, on the CPU; its weights are drawn from torch's global generator.

    Raises:
        models.ModelError: no such model, or it cannot be built so.
    """
    dropout = None if config.dropout == "card" else config.dropout
    settings = model_settings(
        config.model, num_classes=num_classes, dropout=dropout, hparams=config.hparams
    )  # refuses what is not an option of the model, such as `num_classes` or `weights`
    options: dict[str, Any] = dict(settings.hparams)
    streams, pairs = model_streams(config, options)
    model = create_model(
        config.model,
        num_classes=num_classes,
        in_channels=2 * pairs if streams == ("flow",) else 3,
        dropout=dropout,
        **options,
    )
    if config.test_pooling == "fully_convolutional":
        model.score_positions(config.clip.size)
    return model


def model_streams(config: TrainingConfig, options: Mapping[str, Any]) -> tuple[tuple[Stream, ...], int]:
    """Return the streams that the model takes, and the flow fields of one frame; `options` are all of the model's.

    Raises:
        models.InvalidModelError: a two-stream model's `flow_channels` is odd.
    """
    if len(model_info(config.model).inputs) == 1:
        return (config.clip.modality,), config.clip.flow_pairs
    pairs, rest = divmod(int(options["flow_channels"]), 2)
    if rest:
        raise InvalidModelError(
            f"{config.model}: flow_channels = {options['flow_channels']} is odd; flow has an x and a y of each pair"
        )
    return ("rgb", "flow"), pairs
