"""What a caller says about a data set, its clips and their augmentation.

Nothing here touches a file or imports torch, so that a study can be checked without either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .errors import InvalidSpecError

Padding = Literal["loop", "last"]
Validation = Literal["groups"]
StoreKind = Literal["auto", "raw", "i420", "jpeg", "tinyvideo", "lmdb"]
FlowKind = Literal["none", "listed", "dis", "farneback", "tvl1", "raft"]
_UNIFORM = re.compile(r"uniform:([1-9]\d{0,5})")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec:
    """Which data set, which of its splits, and how it is prepared."""

    name: str
    """Importer: the layout on disk, e.g. `ucf101`."""
    root: str | Path
    """Folder that holds the videos and the lists."""
    split: int = 1
    """Number of the official split."""
    validation: Validation = "groups"
    """How validation is cut from the train list: whole groups held out."""
    short_side: int = 128
    """Pixels of the shorter side in the prepared cache; smaller videos keep their size."""
    store: StoreKind = "auto"
    """Form of the prepared frames; `auto` chooses by the size of the set, the memory and the disk."""
    frames_kept: str = "all"
    """`all`, or `uniform:N` for N frames evenly spread over each longer clip."""
    flow: FlowKind = "none"
    """Optical flow to prepare beside the frames: `listed` came with the data set, the others are computed."""
    flow_weights: str | Path | None = None
    """File of torchvision's weights of RAFT."""

    def __post_init__(self) -> None:
        _require(self.split >= 1, "split", self.split, "a split number from 1")
        known = get_args(Validation)
        _require(self.validation in known, "validation", self.validation, f"one of {known}")
        _require(self.short_side >= 16, "short_side", self.short_side, "at least 16 pixels")
        stores, flows = get_args(StoreKind), get_args(FlowKind)
        _require(self.store in stores, "store", self.store, f"one of {stores}")
        _require(self.flow in flows, "flow", self.flow, f"one of {flows}")
        kept = self.frames_kept == "all" or _UNIFORM.fullmatch(self.frames_kept) is not None
        _require(kept, "frames_kept", self.frames_kept, "`all` or `uniform:N`")
        least = self.flow == "none" or self.most_frames is None or self.most_frames >= 2
        _require(least, "frames_kept", self.frames_kept, "at least uniform:2 where flow is prepared")

    @property
    def most_frames(self) -> int | None:
        """Frames kept of a clip at most; None for all."""
        found = _UNIFORM.fullmatch(self.frames_kept)
        return None if found is None else int(found[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSpec:
    """The clip a model sees: `frames` of every `stride`-th frame, `size` pixels square."""

    frames: int = 16
    stride: int = 2
    size: int = 112
    padding: Padding = "loop"
    """How a video shorter than the clip is filled: played again, or its last frame held."""
    crop_fraction: float = 0.875
    """Side of the centre crop of an evaluation, as a share of the short side."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)

    def __post_init__(self) -> None:
        _require(self.frames >= 1, "frames", self.frames, "at least 1")
        _require(self.stride >= 1, "stride", self.stride, "at least 1")
        _require(self.size >= 1, "size", self.size, "at least 1 pixel")
        known = get_args(Padding)
        _require(self.padding in known, "padding", self.padding, f"one of {known}")
        _require(0 < self.crop_fraction <= 1, "crop_fraction", self.crop_fraction, "in (0, 1]")
        _require(min(self.std) > 0, "std", self.std, "positive")

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last frame of the clip, both counted."""
        return (self.frames - 1) * self.stride + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentSpec:
    """Random changes of a training clip; one draw for all frames of a clip.

    The defaults are those of Kinetics training with random resized crops.
    """

    scale_min: float = 0.5
    """Smallest area of the random crop, as a share of the frame's area."""
    scale_max: float = 1.0
    ratio_max: float = 4 / 3
    """Widest aspect ratio of the crop; the narrowest is its inverse."""
    flip: float = 0.5
    """Probability of a horizontal flip: 0 where left and right are different classes."""
    brightness: float = 0.0
    """Brightness is multiplied by a factor drawn from `1 ± brightness`."""
    contrast: float = 0.0
    """Distance from the clip's mean grey is multiplied by a factor from `1 ± contrast`."""

    def __post_init__(self) -> None:
        _require(0 < self.scale_min <= self.scale_max, "scale_min", self.scale_min, "in (0, max]")
        _require(self.scale_max <= 1, "scale_max", self.scale_max, "at most 1")
        _require(self.ratio_max >= 1, "ratio_max", self.ratio_max, "at least 1")
        _require(0 <= self.flip <= 1, "flip", self.flip, "a probability")
        _require(0 <= self.brightness < 1, "brightness", self.brightness, "in [0, 1)")
        _require(0 <= self.contrast < 1, "contrast", self.contrast, "in [0, 1)")


def _require(holds: bool, field: str, value: object, wanted: str) -> None:
    if not holds:
        raise InvalidSpecError(f"{field} is {value!r}; it must be {wanted}")
