"""Image classification: the kind of task `image`, which is the video task with clips of one frame.

Its data set is one of images (`data.importers.image_folders`), its models are those of images in the catalogue, and
what only makes sense over time is no setting: a spec that names it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, StrictInt, field_validator

from ...trial import Params
from .video import DatasetConfig, TrainingConfig, VideoTask

_FIXED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "clip.frames": 1,
        "clip.stride": 1,
        "clip.sampling": "dense",
        "clip.gap": 1,
        "clip.padding": "loop",
        "clip.modality": "rgb",
        "clip.flow_pairs": 5,
        "clip.flow_centring": "zero",
    }
)
"""Settings of clips that say nothing of an image, as every configuration has them."""
OF_VIDEOS: Final = frozenset(
    {
        *_FIXED,
        *("weights.rgb", "weights.flow"),
        *("model.seq_len", "model.consensus", "model.temporal_module", "model.temporal_stride", "model.pooling"),
    }
)
"""What a spec of images cannot set: settings of the frames of a clip, of motion, and of how frames are joined."""
_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType({"model": "resnet50", "batch_size": 32, "clip.size": 224})


class ImageDatasetConfig(DatasetConfig):
    """The data set of a study of images."""

    name: str = "image_folders"
    """The layout on disk."""
    short_side: Annotated[StrictInt, Field(ge=16, le=1024)] = 256

    @field_validator("flow")
    @classmethod
    def _without_flow(cls, flow: str) -> str:
        if flow != "none":
            raise ValueError("an image has no optical flow; leave it out")
        return flow

    @field_validator("frames_kept")
    @classmethod
    def _one_frame(cls, kept: str) -> str:
        if kept != "all":
            raise ValueError("an image has one frame; leave it out")
        return kept

    @field_validator("decoder")
    @classmethod
    def _without_decoder(cls, decoder: str | None) -> str | None:
        if decoder is not None:
            raise ValueError("it decodes videos, and there are none; leave it out")
        return decoder


class ImageTask(VideoTask):
    """Train classifiers of images on a data set. `base` and space hold settings of `TrainingConfig`."""

    kind: Literal["image"]  # type: ignore[assignment]  # the tag of this kind, in the place of the other's
    dataset: ImageDatasetConfig

    clip_word: ClassVar[str] = "image"
    validated_on: ClassVar[str] = "images"
    meaningless: ClassVar[frozenset[str]] = OF_VIDEOS
    memory_powers: ClassVar[Mapping[str, float]] = MappingProxyType({"batch_size": 1.0, "clip.size": 2.0})
    time_powers: ClassVar[Mapping[str, float]] = MappingProxyType({"clip.size": 2.0, "batch_size": 0.0})

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the defaults of `TrainingConfig`, flat, with those of images in their place."""
        return {**TrainingConfig.all_defaults(), **_DEFAULTS, **_FIXED}

    def invalid_value(self, key: str, value: object) -> str | None:
        """Return which bound of the setting `key` the `value` breaks; None where it fits.

        Raises:
            KeyError: there is no such setting, or none of images.
        """
        if key in OF_VIDEOS:
            raise KeyError(f"{key} is a setting of videos, and an image is a single frame; leave it out")
        return super().invalid_value(key, value)

    def config(self, params: Params, *, seed: int) -> dict[str, Any]:
        """Return base and `params` as one flat `TrainingConfig` of clips of one frame."""
        return TrainingConfig.from_flat({"seed": seed, **_DEFAULTS, **self.base, **params, **_FIXED}).to_flat()
