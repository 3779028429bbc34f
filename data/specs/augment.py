"""The random changes of training clips."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StrictInt

from .spec import Spec

Interpolation = Literal["bilinear", "bicubic"]
CropKind = Literal["random_resized", "multi_scale", "corner", "short_side"]
Probability = Annotated[float, Field(ge=0, le=1)]
Jitter = Annotated[float, Field(ge=0, lt=1)]
SHORTEST_SIDE: Final = 256 / 224
"""Shortest short side that a `short_side` crop is cut from, in sides of the crop (SlowFast, ICCV 2019)."""


class AugmentSpec(Spec):
    """Training augmentation, one draw for all frames of a clip; what is 0 is off. docs/clips.md explains each."""

    crop: CropKind = "random_resized"
    """How the box is drawn: see `data.clips.crops`."""
    scale_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Smallest area of a random resized crop, as a share of the frame's."""
    ratio_max: Annotated[float, Field(ge=1, le=4)] = 4 / 3
    """Widest aspect ratio of a random resized crop; the narrowest is its inverse."""
    short_side_max: Annotated[float, Field(ge=SHORTEST_SIDE, le=4)] = 320 / 224
    """Longest short side that a `short_side` crop is cut from, in sides of the crop."""
    flip: Probability = 0.5
    """Probability of a horizontal flip: 0 where left and right are different classes."""
    jitter: Jitter = 0.0
    """Brightness and contrast are multiplied by factors drawn from `1 ± jitter`."""
    saturation: Jitter = 0.0
    """Distance from the pixel's own grey, multiplied likewise."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Turn of the hue, in whole turns, drawn from `± hue`."""
    randaugment_n: Annotated[StrictInt, Field(ge=0, le=14)] = 0
    """Operations of RandAugment in a row."""
    randaugment_m: Annotated[float, Field(ge=0, le=10)] = 9.0
    """Strength of each."""
    randaugment_noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of the strength of each, drawn around `randaugment_m` and cut to 0..10."""
    randaugment_interpolation: Interpolation = "bilinear"
    """How rotated, sheared and moved pictures are read between their pixels; optical flow always bilinearly."""
    erase: Probability = 0.0
    """Probability that one box of all frames is erased."""
    repeats: Annotated[StrictInt, Field(ge=1, le=64)] = 1
    """Clips of each video in an epoch, drawn separately and next to each other (repeated augmentation)."""
    mixup_alpha: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Clips are mixed in shares drawn from Beta(alpha, alpha)."""
    cutmix_alpha: Annotated[float, Field(ge=0, le=100)] = 0.0
    """A box of that share of the picture is taken from another clip."""
    mixup_prob: Probability = 1.0
    """Probability that a batch is mixed, if mixup or CutMix is on."""
    mixup_switch_prob: Probability = 0.5
    """Probability of CutMix in a mixed batch, if both are on."""
