"""The three tables: motion alone, real people, appearance alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from hpo.spec import AnyParameter

from .definition import Definition
from .videos import colour_videos, motion_videos, people_videos

_SPACE: Final = TypeAdapter(dict[str, AnyParameter])
_GENERATED: Final = {"name": "ucf101", "split": 1, "held_out": "2of7", "short_side": 28, "store": "raw"}


def _space(**parameters: Mapping[str, Any]) -> dict[str, AnyParameter]:
    return _SPACE.validate_python({name.replace("__", "."): fields for name, fields in parameters.items()})


MOTION: Final = Definition(
    name="motion",
    what="SlowFast-R18 and R(2+1)D-18 on generated videos whose four classes differ in the direction of motion alone",
    videos=motion_videos,
    dataset=_GENERATED,
    base={
        "batch_size": 16,
        "nesterov": True,
        "dropout": 0.0,
        "model.width": 4,
        "clip.frames": 8,
        "clip.size": 24,
        "augment.flip": 0.0,
        "augment.scale_min": 0.8,
    },
    space=_space(
        model={"type": "categorical", "choices": ["slowfast_r18", "r2plus1d_18"]},
        lr={"type": "float", "low": 5e-3, "high": 2.0, "log": True},
        weight_decay={"type": "float", "low": 1e-5, "high": 0.1, "log": True},
        clip__stride={"type": "int", "low": 1, "high": 3},
        model__alpha={"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r18"]}},
        model__beta_inv={"type": "ordinal", "choices": [1, 2], "when": {"model": ["slowfast_r18"]}},
        model__zero_init={"type": "categorical", "choices": [False, True], "when": {"model": ["r2plus1d_18"]}},
    ),
    parts={"lr": 7, "weight_decay": 2},
    epochs=12,
    final_views=3,
)

PEOPLE: Final = Definition(
    name="people",
    what="TSM-ResNet-18 on videos of real people, validated on actors that do not train (Weizmann, five actions)",
    videos=people_videos,
    dataset={**_GENERATED, "held_out": "2of6", "short_side": 36},
    base={
        "model": "tsm_resnet18",
        "model.width": 8,
        "nesterov": True,
        "clip.frames": 8,
        "clip.size": 32,
        "augment.scale_min": 0.8,
    },
    space=_space(
        optimizer={"type": "categorical", "choices": ["sgd", "adamw"]},
        lr={"type": "float", "low": 5e-4, "high": 0.5, "log": True},
        batch_size={"type": "ordinal", "choices": [4, 8, 16]},
        dropout={"type": "float", "low": 0.0, "high": 0.8},
        clip__stride={"type": "int", "low": 1, "high": 3},
    ),
    parts={"lr": 7, "dropout": 2},
    epochs=12,
    final_views=4,
)

APPEARANCE: Final = Definition(
    name="appearance",
    what="TSN-ResNet-18 on generated videos whose four classes differ in the hue of a moving thing",
    videos=colour_videos,
    dataset=_GENERATED,
    base={
        "model": "tsn_resnet18",
        "model.width": 8,
        "batch_size": 16,
        "nesterov": True,
        "clip.size": 24,
        "clip.sampling": "segments",
        "augment.scale_min": 0.8,
    },
    space=_space(
        lr={"type": "float", "low": 2e-3, "high": 2.0, "log": True},
        clip__frames={"type": "ordinal", "choices": [1, 2, 4]},
        augment__hue={"type": "float", "low": 0.0, "high": 0.3},
        dropout={"type": "float", "low": 0.0, "high": 0.8},
        model__consensus={"type": "categorical", "choices": ["average", "max"], "when": {"clip.frames": [2, 4]}},
    ),
    parts={"lr": 9, "augment.hue": 3, "dropout": 2},
    epochs=12,
    final_views=1,
)

DEFINITIONS: Final[Mapping[str, Definition]] = {
    definition.name: definition for definition in (MOTION, PEOPLE, APPEARANCE)
}
