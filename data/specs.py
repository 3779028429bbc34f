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
Validation = Literal["groups", "kfold", "official", "random"]
_SHARE = re.compile(r"([1-9]\d{0,3})of([1-9]\d{0,3})")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSpec:
    """Which official split, and how validation clips are cut from its train list."""

    split: int = 1
    """Number of the official split."""
    validation: Validation = "groups"
    """`groups`: whole groups held out of the train list; `kfold`: one fold of its groups; `official`: the layout's
    own validation list; `random`: clips, where the names tell no groups."""
    held_out: str = "1of6"
    """Groups of a class that are held out, of how many: `3of18` or `1of6`."""
    seed: int | None = None
    """Draws the held-out groups, or deals the folds; None takes the highest-numbered."""
    folds: int = 5
    fold: int = 1
    """Which of the folds validates, from 1."""

    def __post_init__(self) -> None:
        _require(self.split >= 1, "split", self.split, "a split number from 1")
        known = get_args(Validation)
        _require(self.validation in known, "validation", self.validation, f"one of {known}")
        share = _SHARE.fullmatch(self.held_out)
        in_range = share is not None and int(share[1]) < int(share[2])
        _require(in_range, "held_out", self.held_out, "groups of groups, such as 3of18")
        _require(self.folds >= 2, "folds", self.folds, "at least 2")
        _require(1 <= self.fold <= self.folds, "fold", self.fold, f"in 1..{self.folds}, one of the folds")

    @property
    def held_out_share(self) -> float:
        """Share of a class's train groups that validates."""
        held, _, of = self.held_out.partition("of")
        return int(held) / int(of)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec:
    """Which data set, which of its splits, and how it is prepared."""

    name: str
    """Importer: the layout on disk, e.g. `ucf101`; `auto` recognises it."""
    root: str | Path
    """Folder that holds the videos and the lists."""
    split: int = 1
    """Number of the official split. For this and the next five see `SplitSpec`."""
    validation: Validation = "groups"
    held_out: str = "1of6"
    split_seed: int | None = None
    folds: int = 5
    fold: int = 1
    group_pattern: str | None = None
    """Regular expression that finds a clip's source in its id, where the names are not those of a known set."""
    short_side: int = 128
    """Pixels of the shorter side in the prepared cache; smaller videos keep their size."""

    def __post_init__(self) -> None:
        _ = self.splitting  # refuses what no split can be
        _require(self.short_side >= 16, "short_side", self.short_side, "at least 16 pixels")

    @property
    def splitting(self) -> SplitSpec:
        """How the data set is split."""
        return SplitSpec(
            split=self.split,
            validation=self.validation,
            held_out=self.held_out,
            seed=self.split_seed,
            folds=self.folds,
            fold=self.fold,
        )


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
