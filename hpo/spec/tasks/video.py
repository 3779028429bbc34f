"""Video action recognition: the kind of task `video`, its metrics and the configuration of one of its training runs.

A configuration is written flat, with dots: `lr`, `clip.frames`, `model` (the name) and `model.alpha` (an option of
that model). `TrainingConfig.from_flat` checks it and gives typed access; `to_flat` is its inverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, Field, StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from data.specs import ANY_SPLIT, AugmentSpec, ClipSettings, DatasetSpec

from ...trial import Params, ParamValue
from ..parameters import Strict
from ..wording import complaint, not_valid
from .task import Metric, TaskConfig

METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "val_top1": Metric(
            direction="maximize", is_share=True, meaning="share of validation clips whose best class is right, 0 to 1"
        ),
        "val_top5": Metric(
            direction="maximize",
            is_share=True,
            meaning="share of validation clips with the right class among the best five, 0 to 1",
        ),
        "val_loss": Metric(direction="minimize", meaning="mean cross-entropy on the validation clips, in nats"),
        "train_top1": Metric(
            direction="maximize",
            is_share=True,
            meaning="share of training clips classified right while training, 0 to 1",
        ),
        "train_loss": Metric(direction="minimize", meaning="mean training loss of the epoch, in nats"),
        "epoch_seconds": Metric(
            direction="minimize", meaning="wall time of the epoch, validation included, in seconds"
        ),
        "clips_per_second": Metric(direction="maximize", meaning="training clips per second"),
        "peak_memory_gib": Metric(direction="minimize", meaning="peak memory of the training process, in GiB"),
        "parameters_millions": Metric(direction="minimize", meaning="parameters of the model, in millions"),
    }
)
"""What a worker reports of a video model."""


class DatasetConfig(DatasetSpec):
    """The data set of a study: fields as `data` has them, with bounds against slips of the pen."""

    split: Annotated[StrictInt, Field(ge=1, le=ANY_SPLIT)] = 1
    split_seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] | None = None
    folds: Annotated[StrictInt, Field(ge=2, le=100)] = 5
    group_pattern: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    short_side: Annotated[StrictInt, Field(ge=16, le=1024)] = 128


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
    clip: ClipSettings = ClipSettings()
    augment: AugmentSpec = AugmentSpec()
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """Return the configuration that the dotted form stands for.

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


@cache
def field_adapters() -> dict[str, TypeAdapter[Any]]:
    """Return validators by the dotted names of all fields (options of models are not listed)."""
    adapters: dict[str, TypeAdapter[Any]] = {}
    for name, field in TrainingConfig.model_fields.items():
        if name == "hparams":
            continue
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
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
    adapters = field_adapters()
    if key in adapters:
        return adapters[key]
    if key.startswith("model.") and len(key) > len("model."):
        return _HPARAM
    near = get_close_matches(key, adapters, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(sorted(adapters))
    raise KeyError(f"there is no setting {key!r}; {hint} (options of a model are written model.NAME)")


class _OnVideos(Strict):
    """First in what is written, as it always was."""

    dataset: DatasetConfig


class VideoTask(TaskConfig, _OnVideos):
    """Train video models on a data set. `base` and space hold settings of `TrainingConfig`."""

    kind: Literal["video"] = Field(default="video", exclude=True)
    """Not written, so that workers and tools of earlier releases, which know one kind, read what this one writes."""

    architecture: ClassVar[str | None] = "model"
    memory_powers: ClassVar[Mapping[str, float]] = MappingProxyType(
        {"clip.frames": 1.0, "batch_size": 1.0, "clip.size": 2.0}
    )
    time_powers: ClassVar[Mapping[str, float]] = MappingProxyType(
        {"clip.frames": 1.0, "clip.size": 2.0, "batch_size": 0.0}
    )

    @property
    def reported_metrics(self) -> Mapping[str, Metric]:
        """See `METRICS`."""
        return METRICS

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the defaults of `TrainingConfig`, flat."""
        return TrainingConfig().to_flat()

    def invalid_value(self, key: str, value: object) -> str | None:
        """Return which bound of the setting `key` the `value` breaks; None where it fits.

        Raises:
            KeyError: see `adapter_for`.
        """
        adapter = adapter_for(key)
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            return not_valid(key, value, error)
        return None

    def config(self, params: Params, *, seed: int) -> dict[str, Any]:
        """Return base and `params` as one flat `TrainingConfig`, every field present."""
        return TrainingConfig.from_flat({"seed": seed, **self.base, **params}).to_flat()

    def config_problems(self, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that `TrainingConfig` refuses."""
        try:
            TrainingConfig.from_flat(config)
        except ValidationError as error:
            for found in error.errors():
                # The nested form puts options of a model under `hparams`; written flat they are `model.NAME`.
                parts = [str(part) for part in found["loc"]]
                key = ".".join(["model", *parts[1:]] if parts[:1] == ["hparams"] else parts)
                unknown = found["type"] == "extra_forbidden"
                yield key, "there is no such field; remove it" if unknown else complaint(found)
