"""The data set of a study: where it is, how it is laid out and which of its clips validate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, StrictInt, ValidationInfo, field_validator

from ..parameters import Strict

_SHARE = re.compile(r"([1-9]\d{0,3})of([1-9]\d{0,3})")

LAYOUTS: Mapping[str, int] = MappingProxyType(
    {
        "auto": 99,
        "ucf101": 99,
        "hmdb51": 3,
        "training_validation": 1,
        "annot_json": 99,
        "kinetics": 1,
        "activitynet": 1,
        "something": 1,
        "frame_lists": 1,
        "path_lists": 99,
        "lmdb": 99,
        "class_folders": 1,
    }
)
"""Layouts that `data` reads, and the highest number of an official split in each; a test keeps the two equal."""


class DatasetConfig(Strict):
    """Where the videos are and which of them train, validate and stay sealed."""

    name: str = Field(default="ucf101", json_schema_extra={"enum": list(LAYOUTS)})
    """The layout on disk; `auto` recognises it."""
    root: Annotated[str, Field(min_length=1)]
    split: Annotated[StrictInt, Field(ge=1, le=99)] = 1
    """Number of the official split."""
    validation: Literal["groups", "kfold", "official", "random"] = "groups"
    """`groups`: whole source groups held out of the train list; `kfold`: one fold of its groups; `official`: the
    layout's own validation list; `random`: clips, where no source has two."""
    held_out: str = "1of6"
    """Groups of each class that are held out, of how many."""
    split_seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] | None = None
    """Draws the held-out groups, or deals the folds; without it the highest-numbered are held out."""
    folds: Annotated[StrictInt, Field(ge=2, le=100)] = 5
    fold: Annotated[StrictInt, Field(ge=1)] = 1
    """Which of the folds validates."""
    group_pattern: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """Regular expression that finds a clip's source in its id, where the names are not those of a known set."""
    short_side: Annotated[StrictInt, Field(ge=16, le=1024)] = 128
    """Height or width, whichever is less, of the prepared frames in pixels."""
    store: Literal["auto", "raw", "i420", "jpeg", "tinyvideo", "lmdb"] = "auto"
    """Form of the prepared frames; `auto` chooses by the size of the set, the memory and the disk."""
    frames_kept: Annotated[str, Field(pattern=r"^(all|uniform:[1-9]\d{0,5})$")] = "all"
    """`all`, or `uniform:N` for N frames evenly spread over each longer clip; sampling then sees these."""
    flow: Literal["none", "listed", "dis", "farneback", "tvl1", "raft"] = "none"
    """Optical flow to prepare beside the frames, for two-stream models and clips of modality `flow`."""
    flow_weights: Annotated[str, Field(min_length=1)] | None = Field(default=None, validate_default=True)
    """File of torchvision's weights of RAFT, on the machines of the workers."""

    @field_validator("name")
    @classmethod
    def _known_layout(cls, name: str) -> str:
        if name not in LAYOUTS:
            raise ValueError(f"unknown layout {name!r}; known: " + ", ".join(LAYOUTS))
        return name

    @field_validator("split")
    @classmethod
    def _split_of_layout(cls, split: int, info: ValidationInfo) -> int:
        most = LAYOUTS.get(info.data.get("name", "auto"), 99)
        if split > most:
            raise ValueError(f"layout {info.data['name']!r} has splits up to {most}, not {split}")
        return split

    @field_validator("held_out")
    @classmethod
    def _less_than_all(cls, held_out: str) -> str:
        found = _SHARE.fullmatch(held_out)
        if found is None or int(found[1]) >= int(found[2]):
            raise ValueError(f"{held_out!r} is not a share of the groups; write how many of how many, such as 3of18")
        return held_out

    @field_validator("flow")
    @classmethod
    def _two_frames_kept(cls, flow: str, info: ValidationInfo) -> str:
        if flow != "none" and info.data.get("frames_kept") == "uniform:1":
            raise ValueError("one frame has no optical flow; keep at least uniform:2 in `frames_kept`")
        return flow

    @field_validator("flow_weights")
    @classmethod
    def _weights_of_raft(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if weights is None and info.data.get("flow") == "raft":
            raise ValueError("flow raft needs the path of its weights")
        return weights

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, fold: int, info: ValidationInfo) -> int:
        folds = info.data.get("folds")
        if folds is not None and fold > folds:
            raise ValueError(f"fold {fold} is not one of the {folds} `folds`")
        return fold

    @field_validator("group_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return pattern
