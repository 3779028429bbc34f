"""The configuration of one training run: what `task.base` fixes and the search space varies.

A configuration is written flat, with dots: `lr`, `clip.frames`, `model` (the name) and `model.alpha` (an option of
that model). `TrainingConfig.from_flat` checks it and gives typed access; `to_flat` is its inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter
from pydantic.fields import FieldInfo

from ..trial import ParamValue
from .parameters import Strict


class ClipConfig(Strict):
    """What the model sees of a video: `frames` frames, cropped to `size` pixels square. None of it needs preparing."""

    frames: Annotated[StrictInt, Field(ge=1, le=1024)] = 16
    stride: Annotated[StrictInt, Field(ge=1, le=256)] = 2
    """Frames of the video from one frame of a dense clip to the next."""
    size: Annotated[StrictInt, Field(ge=16, le=1024)] = 112
    sampling: Literal["dense", "segments"] = "dense"
    """One run of frames, or one frame of each of `frames` equal parts of the video."""
    gap: Annotated[StrictInt, Field(ge=1, le=256)] = 1
    """Frames of the video from one frame of a stack to the next, for models with a `seq_len`."""
    padding: Literal["loop", "last"] = "loop"
    """How a video shorter than the clip is filled: played again, or its last frame held."""
    modality: Literal["rgb", "flow"] = "rgb"
    """What a model of one clip sees; a two-stream model sees both."""
    flow_pairs: Annotated[StrictInt, Field(ge=1, le=50)] = 5
    """Flow fields for each frame of a `flow` clip: the model gets twice as many channels."""
    flow_centring: Literal["zero", "mean"] = "zero"
    """`mean` subtracts from each field its mean vector, and with it much of a moving camera."""


Probability = Annotated[float, Field(ge=0, le=1)]
Jitter = Annotated[float, Field(ge=0, lt=1)]


class AugmentConfig(Strict):
    """Training augmentation, one draw for all frames of a clip; what is 0 is off. docs/clips.md explains each."""

    crop: Literal["random_resized", "multi_scale", "corner", "short_side"] = "random_resized"
    scale_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Smallest area of a random resized crop, as a share of the frame's."""
    ratio_max: Annotated[float, Field(ge=1, le=4)] = 4 / 3
    """Widest aspect ratio of a random resized crop; the narrowest is its inverse."""
    short_side_max: Annotated[float, Field(ge=256 / 224, le=4)] = 320 / 224
    """Longest short side that a `short_side` crop is cut from, in sides of the crop; the shortest is 256 / 224."""
    flip: Probability = 0.5
    jitter: Jitter = 0.0
    """Brightness and contrast."""
    saturation: Jitter = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """In whole turns of the colour circle."""
    randaugment_n: Annotated[StrictInt, Field(ge=0, le=14)] = 0
    """Operations of RandAugment in a row."""
    randaugment_m: Annotated[float, Field(ge=0, le=10)] = 9.0
    """Strength of each."""
    erase: Probability = 0.0
    """Probability that one box of all frames is erased."""
    mixup_alpha: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Mixup's shares are drawn from Beta(alpha, alpha)."""
    cutmix_alpha: Annotated[float, Field(ge=0, le=100)] = 0.0
    """The same of CutMix."""
    mixup_prob: Probability = 1.0
    """Probability that a batch is mixed, if mixup or CutMix is on."""
    mixup_switch_prob: Probability = 0.5
    """Probability of CutMix in a mixed batch, if both are on."""


class TrainingConfig(Strict):
    """One training run, complete: the same values on the same machine give the same result."""

    model: Annotated[StrictStr, Field(min_length=1, max_length=200)] = "slowfast_r50_4x16"
    hparams: dict[str, ParamValue] = Field(default_factory=dict)
    """Options of the model, written `model.NAME` in the flat form."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    batch_size: Annotated[StrictInt, Field(ge=1, le=4096)] = 8
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, le=100)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; the first beta of AdamW."""
    nesterov: StrictBool = False
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps over which the learning rate rises linearly from 0 to `lr`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    grad_clip_norm: Annotated[float, Field(gt=0)] | None = 40.0
    head_lr_multiplier: Annotated[float, Field(gt=0, le=1000)] = 1.0
    bias_lr_multiplier: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Of biases of convolutions and linear layers; 2 in Caffe's tradition."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` and `bf16`: bf16 autocast on GPUs that compute it right, float32 elsewhere."""
    clip: ClipConfig = ClipConfig()
    augment: AugmentConfig = AugmentConfig()
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """Build from the dotted form.

        Raises:
            pydantic.ValidationError: a value does not fit its field, or a key is unknown.
        """
        tree: dict[str, Any] = {"hparams": {}}
        for key, value in flat.items():
            head, _, rest = key.partition(".")
            if not rest:
                tree[head] = value
            elif head == "model":
                tree["hparams"][rest] = value
            else:
                tree.setdefault(head, {})[rest] = value
        return cls.model_validate(tree)

    def to_flat(self) -> dict[str, Any]:
        """Return the dotted form, every field present."""
        flat: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json", exclude={"hparams"}).items():
            if isinstance(value, dict):
                flat.update({f"{key}.{name}": inner for name, inner in value.items()})
            else:
                flat[key] = value
        flat.update({f"model.{name}": value for name, value in self.hparams.items()})
        return flat


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Turn nested mappings into dotted keys; `model: {name: X, alpha: 8}` becomes `model` and `model.alpha`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(value, Mapping):
            flat[key] = value
            continue
        for inner, inner_value in flatten(value).items():
            flat[key if (key, inner) == ("model", "name") else f"{key}.{inner}"] = inner_value
    return flat


@cache
def field_adapters() -> dict[str, TypeAdapter[Any]]:
    """The dotted name of every field to a validator of its values (options of models are not listed)."""
    adapters: dict[str, TypeAdapter[Any]] = {}
    for name, field in TrainingConfig.model_fields.items():
        if name == "hparams":
            continue
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Strict):
            for inner, inner_field in annotation.model_fields.items():
                adapters[f"{name}.{inner}"] = _adapter(inner_field)
        else:
            adapters[name] = _adapter(field)
    return adapters


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    # TypeAdapter of a bare annotation would forget the bounds, which pydantic keeps in the field's metadata.
    annotation: Any = field.annotation
    return TypeAdapter(Annotated[annotation, *field.metadata] if field.metadata else annotation)


_HPARAM: TypeAdapter[Any] = TypeAdapter(StrictBool | StrictInt | StrictFloat | StrictStr)


def adapter_for(key: str) -> TypeAdapter[Any]:
    """Return the validator of a dotted key.

    Raises:
        KeyError: no such field; the message suggests the nearest.
    """
    if key.startswith("model.") and len(key) > len("model."):
        return _HPARAM
    adapters = field_adapters()
    if key not in adapters:
        near = get_close_matches(key, adapters, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(sorted(adapters))
        raise KeyError(f"there is no setting {key!r}; {hint} (options of a model are written model.NAME)")
    return adapters[key]
