"""A data set: where it is, how it is laid out, which of its clips train and validate, and how it is prepared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    StrictInt,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import CoreSchema, core_schema

from .place import is_remote, require_address
from .spec import Spec

Validation = Literal["groups", "kfold", "official", "random"]
StoreKind = Literal["auto", "raw", "i420", "jpeg", "tinyvideo", "lmdb"]
FlowKind = Literal["none", "listed", "dis", "farneback", "tvl1", "raft"]
_SHARE: Final = re.compile(r"([1-9]\d{0,3})of([1-9]\d{0,3})")
_KEPT: Final = re.compile(r"all|uniform:[1-9]\d{0,5}")

LONGEST_PATTERN: Final = 1000
"""Characters of a regular expression: compiling one takes longer, the longer it is, and nothing interrupts that."""
ANY_SPLIT: Final = 99
"""Stands for a layout whose lists may describe any number of splits."""
LAYOUTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "auto": ANY_SPLIT,
        "ucf101": ANY_SPLIT,
        "hmdb51": 3,
        "training_validation": 1,
        "annot_json": ANY_SPLIT,
        "kinetics": 1,
        "activitynet": 1,
        "something": 1,
        "frame_lists": 1,
        "path_lists": ANY_SPLIT,
        "lmdb": ANY_SPLIT,
        "webdataset": 1,
        "videofolder": 1,
        "parquet": 1,
        "class_folders": 1,
        "image_folders": 1,
    }
)
"""The layouts that `data.importers` reads, and the highest number of an official split in each."""


class _PathText:
    """Has pydantic keep a path as text, as specs hold it; a `Path` is taken too."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(min_length=1)
        return core_schema.no_info_before_validator_function(
            lambda value: str(value) if isinstance(value, Path) else value, text
        )


PathText = Annotated[str | Path, _PathText()]


class _Source(Spec):
    """Where the videos are."""

    name: str = Field(default="ucf101", json_schema_extra={"enum": list(LAYOUTS)})
    """The layout on disk; `auto` recognises it."""
    root: PathText
    """Folder that holds the videos and the lists, or its address (`s3://bucket/folder`)."""

    @field_validator("name")
    @classmethod
    def _known_layout(cls, name: str) -> str:
        if name not in LAYOUTS:
            raise ValueError(f"unknown layout {name!r}; known: " + ", ".join(LAYOUTS))
        return name

    @field_validator("root")
    @classmethod
    def _names_a_place(cls, root: str) -> str:
        if is_remote(root):
            require_address(root)
        return root


class SplitSpec(Spec):
    """Which official split, and how validation clips are cut from its train list."""

    split: Annotated[StrictInt, Field(ge=1)] = 1
    """Number of the official split."""
    validation: Validation = "groups"
    """`groups`: whole source groups held out of the train list; `kfold`: one fold of its groups; `official`: the
    layout's own validation list; `random`: clips, where no source has two."""
    held_out: str = "1of6"
    """Groups of each class that are held out, of how many: `3of18` or `1of6`."""
    split_seed: StrictInt | Literal["trial"] | None = None
    """Draws the held-out groups, or deals the folds; without it the highest-numbered are held out. `trial`: every trial
    of a study draws its own, from its seed; outside of a trial it is 0."""
    folds: Annotated[StrictInt, Field(ge=2)] = 5
    fold: Annotated[StrictInt, Field(ge=1)] = 1
    """Which of the folds validates."""

    @field_validator("held_out")
    @classmethod
    def _less_than_all(cls, held_out: str) -> str:
        found = _SHARE.fullmatch(held_out)
        if found is None or int(found[1]) >= int(found[2]):
            raise ValueError(f"{held_out!r} is not a share of the groups; write how many of how many, such as 3of18")
        return held_out

    @field_validator("split_seed")
    @classmethod
    def _draws_groups(cls, seed: int | str | None, info: ValidationInfo) -> int | str | None:
        if seed == "trial" and info.data.get("validation") == "official":
            raise ValueError("every trial has the same official validation list; set `validation` to groups or kfold")
        return seed

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, fold: int, info: ValidationInfo) -> int:
        folds = info.data.get("folds")
        if folds is not None and fold > folds:
            raise ValueError(f"fold {fold} is not one of the {folds} `folds`")
        return fold

    @property
    def held_out_share(self) -> float:
        """Share of a class's train groups that validates."""
        held, _, of = self.held_out.partition("of")
        return int(held) / int(of)


class DatasetSpec(SplitSpec, _Source):
    """Where the videos are, which of them train, validate and stay sealed, and how they are prepared."""

    group_pattern: Annotated[str, Field(min_length=1, max_length=LONGEST_PATTERN)] | None = None
    """Regular expression that finds a clip's source in its id, where the names are not those of a known set."""
    short_side: Annotated[StrictInt, Field(ge=16)] = 128
    """Height or width, whichever is less, of the prepared frames in pixels; smaller videos keep their size."""
    store: StoreKind = "auto"
    """Form of the prepared frames; `auto` chooses by the size of the set, the memory and the disk."""
    frames_kept: Annotated[str, Field(json_schema_extra={"pattern": f"^({_KEPT.pattern})$"})] = "all"
    """`all`, or `uniform:N` for N frames evenly spread over each longer clip; sampling then sees these."""
    decoder: Literal["pyav", "torchcodec"] | None = None
    """What decodes videos into RGB frames; None is `pyav`. Where `torchcodec` does not load, no frames are prepared."""
    flow: FlowKind = "none"
    """Optical flow to prepare beside the frames, for two-stream models and clips of modality `flow`: `listed` came
    with the data set, the others are computed."""
    flow_weights: PathText | None = Field(default=None, validate_default=True)
    """File of torchvision's weights of RAFT, on the machines of the workers."""

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Specs, leases and exports stay what earlier releases have written, and what they can read.
        document: dict[str, Any] = write(self)
        if self.decoder is None:
            document.pop("decoder", None)
        return document

    @field_validator("split")
    @classmethod
    def _split_of_layout(cls, split: int, info: ValidationInfo) -> int:
        most = LAYOUTS.get(info.data.get("name", "auto"), ANY_SPLIT)
        if split > most and most != ANY_SPLIT:
            raise ValueError(f"layout {info.data['name']!r} has splits up to {most}, not {split}")
        return split

    @field_validator("frames_kept")
    @classmethod
    def _all_or_uniform(cls, kept: str) -> str:
        if _KEPT.fullmatch(kept) is None:
            raise ValueError(f"{kept!r} is neither `all` nor `uniform:N` with a number N from 1")
        return kept

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

    @field_validator("group_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return pattern

    @property
    def most_frames(self) -> int | None:
        """Frames kept of a clip at most; None for all."""
        _, _, count = self.frames_kept.partition(":")
        return int(count) if count else None
