"""The clips that a model sees: what a person sets, and what the model's card adds."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, StrictInt, field_validator, model_validator

from .spec import Spec

Padding = Literal["loop", "last"]
Sampling = Literal["dense", "segments"]
FlowCentring = Literal["zero", "mean"]
Stream = Literal["rgb", "flow"]
Positive = Annotated[float, Field(gt=0)]


class ClipSettings(Spec):
    """What the model sees of a video: `frames` frames, cropped to `size` pixels square. None of it needs preparing."""

    frames: Annotated[StrictInt, Field(ge=1, le=1024)] = 16
    stride: Annotated[StrictInt, Field(ge=1, le=256)] = 2
    """Frames of the video from one frame of a dense clip to the next."""
    size: Annotated[StrictInt, Field(ge=16, le=1024)] = 112
    test_size: Literal[0] | Annotated[StrictInt, Field(ge=16, le=1024)] = 0
    """Side in pixels of the clips that a model is scored on; 0: as in training."""
    sampling: Sampling = "dense"
    """`dense`: one run of frames in steps of `stride`. `segments`: one frame of each of `frames` equal parts of the
    video (Temporal Segment Networks, ECCV 2016)."""
    gap: Annotated[StrictInt, Field(ge=1, le=256)] = 1
    """Frames of the video from one frame of a stack to the next, for models with a `seq_len`."""
    padding: Padding = "loop"
    """How a video shorter than the clip is filled: played again, or its last frame held."""
    modality: Stream = "rgb"
    """What a model of one clip sees; a two-stream model sees both."""
    flow_pairs: Annotated[StrictInt, Field(ge=1, le=50)] = 5
    """Flow fields in a row, around the frame, that stand for one frame: `2 * flow_pairs` channels."""
    flow_centring: FlowCentring = "zero"
    """`mean` subtracts from each field its mean vector, and with it much of a moving camera (Simonyan and Zisserman,
    NIPS 2014, section 3.1)."""


class ClipSpec(ClipSettings):
    """The settings of a clip, with what follows from the model."""

    flow_pairs: Annotated[StrictInt, Field(ge=1, le=50)] = 1
    stack: Annotated[StrictInt, Field(ge=1)] = 1
    """This many frames, `gap` apart, stand where one stood; `frames` counts them all."""
    inputs: tuple[Stream, ...] = Field(default_factory=lambda fields: (fields["modality"],))
    """What a clip consists of, by default its modality; two inputs share their frames, their crop and their flip."""
    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Side of the centre crop of an evaluation, as a share of the short side."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[Positive, Positive, Positive] = (0.225, 0.225, 0.225)

    @field_validator("inputs")
    @classmethod
    def _streams_in_order(cls, inputs: tuple[Stream, ...]) -> tuple[Stream, ...]:
        streams = get_args(Stream)
        if not inputs or inputs != tuple(stream for stream in streams if stream in inputs):
            raise ValueError(f"{inputs!r} are not streams; give some of {streams}, in this order")
        return inputs

    @model_validator(mode="after")
    def _whole_stacks(self) -> Self:
        if self.frames % self.stack:
            raise ValueError(f"frames is {self.frames}; it must be a multiple of stack ({self.stack})")
        return self

    def for_evaluation(self) -> Self:
        """Return the clips that a model is scored on: larger ones show more of the picture at the same scale."""
        size = self.test_size or self.size
        fraction = min(1.0, self.crop_fraction * size / self.size)
        return self.model_copy(update={"size": size, "test_size": 0, "crop_fraction": fraction})

    @property
    def images(self) -> int:
        """Stacks of frames: what `stride` and the segments count."""
        return self.frames // self.stack

    @property
    def stack_span(self) -> int:
        """Frames of the video from the first to the last of a stack, both counted."""
        return (self.stack - 1) * self.gap + 1

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last frame of a dense clip, both counted."""
        return (self.images - 1) * self.stride + self.stack_span
