"""Video action recognition: the kind of task `video`, its metrics and the configuration of one of its training runs.

A configuration is written flat, with dots: `lr`, `clip.frames`, `model` (the name) and `model.alpha` (an option of
that model). `TrainingConfig.from_flat` checks it and gives typed access; `to_flat` is its inverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from data.specs import ANY_SPLIT, AugmentSpec, ClipSettings, DatasetSpec

from ...meanings import nearest
from ...trial import Params, ParamValue
from ..parameters import Strict
from ..wording import complaint, not_valid
from .milestones import Milestones
from .task import Metric, TaskConfig

Schedule = Literal["cosine", "constant", "step", "multistep", "exponential", "one_cycle"]

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
        "val_clips": Metric(direction="maximize", meaning="clips that the validation scored"),
        "train_top1": Metric(
            direction="maximize",
            is_share=True,
            meaning="share of training clips classified right while training, 0 to 1",
        ),
        "train_loss": Metric(direction="minimize", meaning="mean training loss of the epoch, in nats"),
        "epoch_seconds": Metric(
            direction="minimize", meaning="wall time of the epoch, validation included, in seconds"
        ),
        "validation_seconds": Metric(
            direction="minimize",
            meaning="wall time of the validation, batch-norm statistics before it included, in seconds",
        ),
        "clips_per_second": Metric(direction="maximize", meaning="training clips per second"),
        "peak_memory_gib": Metric(direction="minimize", meaning="peak memory of the training process, in GiB"),
        "parameters_millions": Metric(direction="minimize", meaning="parameters of the model, in millions"),
        "latency_ms": Metric(
            direction="minimize", on_demand=True, meaning="median time of the model for one clip, in milliseconds"
        ),
        "latency_p95_ms": Metric(
            direction="minimize", on_demand=True, meaning="95th percentile of that time, in milliseconds"
        ),
        "batch_latency_ms": Metric(
            direction="minimize",
            on_demand=True,
            meaning="median time of the model for a batch of `batch_size` clips, in milliseconds",
        ),
        "batch_latency_p95_ms": Metric(
            direction="minimize", on_demand=True, meaning="95th percentile of that time, in milliseconds"
        ),
        "onnx_latency_ms": Metric(
            direction="minimize",
            on_demand=True,
            meaning="median time of the model as ONNX, in ONNX Runtime, for one clip, in milliseconds",
        ),
        "onnx_latency_p95_ms": Metric(
            direction="minimize", on_demand=True, meaning="95th percentile of that time, in milliseconds"
        ),
        "onnx_batch_latency_ms": Metric(
            direction="minimize",
            on_demand=True,
            meaning="median time of the model as ONNX for a batch of `batch_size` clips, in milliseconds",
        ),
        "onnx_batch_latency_p95_ms": Metric(
            direction="minimize", on_demand=True, meaning="95th percentile of that time, in milliseconds"
        ),
    }
)
"""What a worker reports of a video model."""

_ADDED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "ema": 0.0,
        "precise_bn": False,
        "weights": "none",
        "freeze": "none",
        "unfreeze_every": 0,
        "batch_norm": "train",
        "layer_decay": 1.0,
        "decay_tables": True,
        "lr_scaling": "none",
        "lr_batch_size": 64,
        "lr_gamma": 0.1,
        "lr_step": 0.3,
        "lr_milestones": "0.5, 0.75",
        "warmup_start_share": 0.0,
        "min_lr_share": 0.0,
        "validate_every": 1,
        "keep_best_epoch": False,
        "clip.test_size": 0,
        "test_pooling": "global",
        "augment.repeats": 1,
        "augment.randaugment_noise": 0.0,
        "augment.randaugment_interpolation": "bilinear",
    }
)
"""Fields that 0.2.0 did not know, with the values that train as it did. With these they are not written, so that what
it wrote, such as a checkpoint or an export, is written the same again."""

_DICTS: Final[Mapping[str, str]] = MappingProxyType({"model": "hparams", "weights": "stream_weights"})
"""Fields that hold what is written HEAD.NAME in the flat form, by that head, which is also a field of its own."""


class DatasetConfig(DatasetSpec):
    """The data set of a study: fields as `data` has them, with bounds against slips of the pen."""

    split: Annotated[StrictInt, Field(ge=1, le=ANY_SPLIT)] = 1
    split_seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] | Literal["trial"] | None = None
    folds: Annotated[StrictInt, Field(ge=2, le=100)] = 5
    group_pattern: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    short_side: Annotated[StrictInt, Field(ge=16, le=1024)] = 128

    def of_trial(self, seed: int) -> Self:
        """Return the data set of the trial with this seed, which draws the groups that it holds out if each draws."""
        return self.model_copy(update={"split_seed": seed}) if self.split_seed == "trial" else self


WeightsName = Annotated[StrictStr, Field(min_length=1, max_length=500)]
"""A file in a folder of weights, `torchvision:NAME`, `hf:REPO`, `hf:REPO/FILE` or `none`."""


class TrainingConfig(Strict):
    """One training run, complete: the same values on the same machine give the same result."""

    model: Annotated[StrictStr, Field(min_length=1, max_length=200)] = "slowfast_r50_4x16"
    hparams: dict[str, ParamValue] = Field(default_factory=dict)
    """Options of the model, written `model.NAME` in the flat form."""
    weights: WeightsName = "none"
    """What the training starts from; `none`: from scratch."""
    stream_weights: dict[Literal["rgb", "flow"], WeightsName] = Field(default_factory=dict)
    """The same for each stream of a two-stream model, written `weights.rgb` and `weights.flow` in the flat form."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | Literal["card"] = 0.5
    """Before the classifier. `card`: as the model is published with; new studies have it where they name none."""
    batch_size: Annotated[StrictInt, Field(ge=1, le=4096)] = 8
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, le=100)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; the first beta of AdamW."""
    nesterov: StrictBool = False
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-4
    decay_tables: StrictBool = True
    """Whether a transformer's tables of positions and its tokens decay as well. False in new studies."""
    schedule: Schedule = "cosine"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps over which the learning rate rises linearly to `lr`; with `one_cycle` along half a cosine."""
    warmup_start_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where the rise begins, as a share of `lr`; with `one_cycle` 0 stands for 1/25."""
    min_lr_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The lowest learning rate after the warm-up, as a share of `lr`; with `one_cycle` 0 stands for 1/250000."""
    lr_gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """By how much the learning rate is multiplied at each step, and over the whole run with `exponential`."""
    lr_step: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the run from one step to the next, with `step`."""
    lr_milestones: Milestones = "0.5, 0.75"
    """Shares of the run after which the learning rate steps, with `multistep`."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """What `lr` is multiplied by: 1, `batch_size / lr_batch_size`, or the square root of that."""
    lr_batch_size: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 64
    """Batch size that `lr` is meant for, with `lr_scaling`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    grad_clip_norm: Annotated[float, Field(gt=0)] | None = 40.0
    freeze: Literal["none", "stem", "backbone"] | Annotated[StrictInt, Field(ge=1, le=1000)] = "none"
    """What does not train: the stem, the stem and this many layers after it, or all but the head. A layer is a stage
    of a convolutional network or a block of a transformer."""
    unfreeze_every: Annotated[StrictInt, Field(ge=0, le=10_000)] = 0
    """Epochs after which one more frozen layer trains, each time the last one of them; 0: none ever does."""
    batch_norm: Literal["train", "freeze", "freeze_all_but_first"] = "train"
    """Which batch norms keep their statistics, scale and shift: none, all, or all but the first of each stream."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """By how much the learning rate is multiplied from a layer to the one before it, the head having the full one."""
    head_lr_multiplier: Annotated[float, Field(gt=0, le=1000)] = 1.0
    bias_lr_multiplier: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Of biases of convolutions and linear layers; 2 in Caffe's tradition."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share that the average of the weights keeps at each update; the average is validated and exported. 0 for none."""
    precise_bn: StrictBool = False
    """Before each validation, compute the statistics of batch norm from a part of the training clips with the weights
    as they are. True in new studies that do not say otherwise."""
    validate_every: Annotated[StrictInt, Field(ge=1, le=10_000)] = 1
    """Epochs from one validation to the next; the last epoch is always validated."""
    test_pooling: Literal["global", "fully_convolutional"] = "global"
    """How clips of `clip.test_size` are scored: `global` pools their whole maps. `fully_convolutional` pools windows as
    large as the maps of a training clip, and averages the softmax outputs at all positions."""
    keep_best_epoch: StrictBool = False
    """Keep the weights of the epoch with the highest `val_top1` beside those of the last, which are the result."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`bf16` and `fp16`: autocast on GPUs that compute it right, float32 elsewhere. `auto`: bf16, else fp16."""
    clip: ClipSettings = ClipSettings()
    augment: AugmentSpec = AugmentSpec()
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _one_kind_of_weights(self) -> Self:
        if self.stream_weights and self.weights != "none":
            raise ValueError("give weights of the whole model, or of its streams as weights.rgb and weights.flow")
        return self

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """Return the configuration that the dotted form stands for.

        Raises:
            pydantic.ValidationError: a value does not fit its field, or a key is unknown.
        """
        tree: dict[str, Any] = {}
        for key, value in flat.items():
            head, _, rest = key.partition(".")
            if not rest:
                tree[head] = value
            else:
                tree.setdefault(_DICTS.get(head, head), {})[rest] = value
        return cls.model_validate(tree)

    def to_flat(self) -> dict[str, Any]:
        """Return the dotted form: every field, except those of `_ADDED` that change nothing."""
        flat = self._all_flat()
        return {key: value for key, value in flat.items() if key not in _ADDED or value != _ADDED[key]}

    @classmethod
    def all_defaults(cls) -> dict[str, Any]:
        """Return the dotted form of the defaults, every field present."""
        return cls()._all_flat()

    def _all_flat(self) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json", exclude=set(_DICTS.values())).items():
            if isinstance(value, dict):
                flat.update({f"{key}.{name}": inner for name, inner in value.items()})
            else:
                flat[key] = value
        for head, field in _DICTS.items():
            flat.update({f"{head}.{name}": value for name, value in getattr(self, field).items()})
        return flat


@cache
def field_adapters() -> dict[str, TypeAdapter[Any]]:
    """Return validators by the dotted names of all fields (options of models are not listed)."""
    adapters: dict[str, TypeAdapter[Any]] = {}
    for name, field in TrainingConfig.model_fields.items():
        if name in _DICTS.values():
            continue
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for inner, inner_field in annotation.model_fields.items():
                adapters[f"{name}.{inner}"] = _adapter(inner_field)
        else:
            adapters[name] = _adapter(field)
    adapters |= {f"weights.{stream}": adapters["weights"] for stream in ("rgb", "flow")}
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
    near = nearest(key, adapters)
    hint = f"did you mean {near!r}?" if near is not None else "known: " + ", ".join(sorted(adapters))
    raise KeyError(f"there is no setting {key!r}; {hint} (options of a model are written model.NAME)")


class _OnVideos(Strict):
    """First in what is written, as it always was."""

    dataset: DatasetConfig


def _add_recipe(schema: dict[str, Any]) -> None:
    """Describe `recipe`, which `hpo.spec.recipes` has replaced by its settings before a task is read."""
    schema["properties"]["recipe"] = {
        "type": "string",
        "description": "A recipe whose settings are defaults of `base`; what is stored has the settings themselves.",
    }


class VideoTask(TaskConfig, _OnVideos):
    """Train video models on a data set. `base` and space hold settings of `TrainingConfig`."""

    model_config = ConfigDict(json_schema_extra=_add_recipe)

    kind: Literal["video"] = Field(default="video", exclude=True)
    """Not written, so that workers and tools of earlier releases, which know one kind, read what this one writes."""

    clip_word: ClassVar[str] = "video"
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
        return TrainingConfig.all_defaults()

    @classmethod
    def recommended(cls) -> Mapping[str, Any]:
        """Return the settings that later releases added and that are better than what was before."""
        return {"precise_bn": True, "dropout": "card", "decay_tables": False}

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
        """Return base and `params` as one flat `TrainingConfig`."""
        return TrainingConfig.from_flat({"seed": seed, **self.base, **params}).to_flat()

    def config_problems(self, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that `TrainingConfig` refuses."""
        try:
            TrainingConfig.from_flat(config)
        except ValidationError as error:
            for found in error.errors():
                # The nested form puts options of a model under `hparams`; written flat they are `model.NAME`.
                heads = {field: head for head, field in _DICTS.items()}
                parts = [str(part) for part in found["loc"]]
                key = ".".join([heads.get(part, part) for part in parts[:1]] + parts[1:])
                unknown = found["type"] == "extra_forbidden"
                yield key, "there is no such field; remove it" if unknown else complaint(found)
