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
Sampling = Literal["dense", "segments"]
FlowCentring = Literal["zero", "mean"]
Stream = Literal["rgb", "flow"]
CropKind = Literal["random_resized", "multi_scale", "corner", "short_side"]
StoreKind = Literal["auto", "raw", "i420", "jpeg", "tinyvideo", "lmdb"]
FlowKind = Literal["none", "listed", "dis", "farneback", "tvl1", "raft"]
_UNIFORM = re.compile(r"uniform:([1-9]\d{0,5})")
_SHARE = re.compile(r"([1-9]\d{0,3})of([1-9]\d{0,3})")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSpec:
    """Which official split, and how validation clips are cut from its train list."""

    split: int = 1
    """Number of the official split."""
    validation: Validation = "groups"
    """`groups`: whole groups held out of the train list; `kfold`: one fold of its groups; `official`: the layout's
    own validation list; `random`: clips, where no group has two."""
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
    store: StoreKind = "auto"
    """Form of the prepared frames; `auto` chooses by the size of the set, the memory and the disk."""
    frames_kept: str = "all"
    """`all`, or `uniform:N` for N frames evenly spread over each longer clip."""
    flow: FlowKind = "none"
    """Optical flow to prepare beside the frames: `listed` came with the data set, the others are computed."""
    flow_weights: str | Path | None = None
    """File of torchvision's weights of RAFT."""

    def __post_init__(self) -> None:
        _ = self.splitting  # refuses what no split can be
        _require(self.short_side >= 16, "short_side", self.short_side, "at least 16 pixels")
        stores, flows = get_args(StoreKind), get_args(FlowKind)
        _require(self.store in stores, "store", self.store, f"one of {stores}")
        _require(self.flow in flows, "flow", self.flow, f"one of {flows}")
        kept = self.frames_kept == "all" or _UNIFORM.fullmatch(self.frames_kept) is not None
        _require(kept, "frames_kept", self.frames_kept, "`all` or `uniform:N`")
        weights = self.flow != "raft" or self.flow_weights is not None
        _require(weights, "flow_weights", self.flow_weights, "the path of RAFT's weights where flow is raft")
        least = self.flow == "none" or self.most_frames is None or self.most_frames >= 2
        _require(least, "frames_kept", self.frames_kept, "at least uniform:2 where flow is prepared")

    @property
    def most_frames(self) -> int | None:
        """Frames kept of a clip at most; None for all."""
        found = _UNIFORM.fullmatch(self.frames_kept)
        return None if found is None else int(found[1])

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
    """The clip a model sees: `frames` frames, `size` pixels square, as RGB, as flow or as both."""

    frames: int = 16
    stride: int = 2
    """Frames of the video from one frame of a dense clip to the next."""
    size: int = 112
    sampling: Sampling = "dense"
    """`dense`: one run of frames in steps of `stride`. `segments`: one frame of each of `frames` equal parts of the
    video (Temporal Segment Networks, ECCV 2016)."""
    stack: int = 1
    """So many frames, `gap` apart, stand where one stood; `frames` counts them all."""
    gap: int = 1
    inputs: tuple[Stream, ...] = ("rgb",)
    """What a clip consists of; two inputs share their frames, their crop and their flip."""
    flow_pairs: int = 1
    """Flow fields in a row, around the frame, that stand for one frame: `2 * flow_pairs` channels."""
    flow_centring: FlowCentring = "zero"
    """`mean` subtracts from each field its mean vector, and with it much of a moving camera (Simonyan and Zisserman,
    NIPS 2014, section 3.1)."""
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
        _require_known("sampling", self.sampling, Sampling)
        _require(self.stack >= 1, "stack", self.stack, "at least 1")
        _require(self.frames % self.stack == 0, "frames", self.frames, f"a multiple of stack ({self.stack})")
        _require(self.gap >= 1, "gap", self.gap, "at least 1")
        streams = get_args(Stream)
        ordered = tuple(stream for stream in streams if stream in self.inputs)
        _require(bool(self.inputs) and self.inputs == ordered, "inputs", self.inputs, f"some of {streams}, in order")
        _require(self.flow_pairs >= 1, "flow_pairs", self.flow_pairs, "at least 1")
        _require_known("flow_centring", self.flow_centring, FlowCentring)
        _require_known("padding", self.padding, Padding)
        _require(0 < self.crop_fraction <= 1, "crop_fraction", self.crop_fraction, "in (0, 1]")
        _require(min(self.std) > 0, "std", self.std, "positive")

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


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentSpec:
    """Random changes of training clips; one draw for all frames of a clip.

    The defaults are those of Kinetics training with random resized crops; what is not named there is off.
    """

    crop: CropKind = "random_resized"
    """How the box is drawn: see `data.clips.crops`."""
    scale_min: float = 0.5
    """Smallest area of a random resized crop, as a share of the frame's area."""
    scale_max: float = 1.0
    ratio_max: float = 4 / 3
    """Widest aspect ratio of a random resized crop; the narrowest is its inverse."""
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides of multi-scale and corner crops, as shares of the short side."""
    short_side_min: float = 256 / 224
    """Least short side of a `short_side` crop, in sides of the crop."""
    short_side_max: float = 320 / 224
    flip: float = 0.5
    """Probability of a horizontal flip: 0 where left and right are different classes."""
    brightness: float = 0.0
    """Brightness is multiplied by a factor drawn from `1 ± brightness`; the same for the next two."""
    contrast: float = 0.0
    """Distance from the clip's mean grey."""
    saturation: float = 0.0
    """Distance from the pixel's own grey."""
    hue: float = 0.0
    """Turn of the hue, in whole turns, drawn from `± hue`."""
    randaugment_n: int = 0
    """Operations of RandAugment in a row; 0 for none."""
    randaugment_m: float = 9.0
    """Strength of each, from 0 to 10."""
    erase: float = 0.0
    """Probability that one box of all frames is erased."""
    mixup_alpha: float = 0.0
    """Clips are mixed in shares drawn from Beta(alpha, alpha); 0 for no mixup."""
    cutmix_alpha: float = 0.0
    """A box of that share of the picture is taken from another clip; 0 for no CutMix."""
    mixup_prob: float = 1.0
    """Probability that a batch is mixed, if any of the two is on."""
    mixup_switch_prob: float = 0.5
    """Probability of CutMix in a mixed batch, if both are on."""

    def __post_init__(self) -> None:
        _require_known("crop", self.crop, CropKind)
        _require(0 < self.scale_min <= self.scale_max, "scale_min", self.scale_min, "in (0, max]")
        _require(self.scale_max <= 1, "scale_max", self.scale_max, "at most 1")
        _require(self.ratio_max >= 1, "ratio_max", self.ratio_max, "at least 1")
        _require(bool(self.scales) and all(0 < s <= 1 for s in self.scales), "scales", self.scales, "shares in (0, 1]")
        least, most = self.short_side_min, self.short_side_max
        _require(1 <= least <= most, "short_side_min", least, "in [1, short_side_max]")
        _require(0 <= self.hue <= 0.5, "hue", self.hue, "in [0, 0.5]")
        for field in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, field) < 1, field, getattr(self, field), "in [0, 1)")
        for field in ("flip", "erase", "mixup_prob", "mixup_switch_prob"):
            _require(0 <= getattr(self, field) <= 1, field, getattr(self, field), "a probability")
        _require(self.randaugment_n >= 0, "randaugment_n", self.randaugment_n, "at least 0")
        _require(0 <= self.randaugment_m <= 10, "randaugment_m", self.randaugment_m, "in [0, 10]")
        for field in ("mixup_alpha", "cutmix_alpha"):
            _require(getattr(self, field) >= 0, field, getattr(self, field), "at least 0")


def _require_known(field: str, value: object, literal: object) -> None:
    known = get_args(literal)
    _require(value in known, field, value, f"one of {known}")


def _require(holds: bool, field: str, value: object, wanted: str) -> None:
    if not holds:
        raise InvalidSpecError(f"{field} is {value!r}; it must be {wanted}")
