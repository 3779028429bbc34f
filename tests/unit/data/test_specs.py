"""Specifications refuse values that make no sense, and say in one sentence which field is wrong and what is right."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from data import AugmentSpec, ClipSpec, DatasetError, DatasetSpec, InvalidSpecError
from data.specs import ClipSettings, SplitSpec


def _dataset(**fields: Any) -> DatasetSpec:
    return DatasetSpec(**{"root": "x", **fields})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ClipSpec(frames=0), "frames is 0; it must be greater than or equal to 1"),
        (lambda: ClipSpec(frames=2.5), "frames is 2.5; it must be a valid integer"),  # type: ignore[arg-type]  # the mistake
        (lambda: ClipSpec(stride=0), "stride is 0; it must be greater than or equal to 1"),
        (lambda: ClipSpec(size=8), "size is 8; it must be greater than or equal to 16"),
        (lambda: ClipSpec(padding="mirror"), "padding is 'mirror'; it must be 'loop' or 'last'"),  # type: ignore[arg-type]  # the mistake
        (lambda: ClipSpec(crop_fraction=0.0), "crop_fraction is 0.0; it must be greater than 0"),
        (lambda: ClipSpec(std=(0.2, 0.0, 0.2)), "std.1 is 0.0; it must be greater than 0"),
        (lambda: ClipSpec(sampling="random"), "sampling is 'random'; it must be 'dense' or 'segments'"),  # type: ignore[arg-type]  # the mistake
        (lambda: ClipSpec(stack=0), "stack is 0; it must be greater than or equal to 1"),
        (lambda: ClipSpec(frames=10, stack=3), "frames is 10; it must be a multiple of stack (3)"),
        (lambda: ClipSpec(gap=0), "gap is 0; it must be greater than or equal to 1"),
        (lambda: ClipSpec(inputs=()), "inputs: () are not streams; give some of ('rgb', 'flow'), in this order"),
        (lambda: ClipSpec(inputs=("flow", "rgb")), "inputs: ('flow', 'rgb') are not streams; give some of "),
        (lambda: ClipSpec(modality="sound"), "modality is 'sound'; it must be 'rgb' or 'flow'"),  # type: ignore[arg-type]  # the mistake
        (lambda: ClipSpec(flow_pairs=0), "flow_pairs is 0; it must be greater than or equal to 1"),
        (lambda: ClipSpec(flow_centring="median"), "flow_centring is 'median'; it must be 'zero' or 'mean'"),  # type: ignore[arg-type]  # the mistake
        (lambda: ClipSettings(colour=1), "ClipSettings has no field colour; it has: frames, stride, size"),  # type: ignore[call-arg]  # the mistake
        (lambda: AugmentSpec(crop="round"), "crop is 'round'; it must be 'random_resized', 'multi_scale', 'corner' or"),  # type: ignore[arg-type]  # the mistake
        (lambda: AugmentSpec(short_side_max=1.0), "short_side_max is 1.0; it must be greater than or equal to 1.14"),
        (lambda: AugmentSpec(jitter=1.0), "jitter is 1.0; it must be less than 1"),
        (lambda: AugmentSpec(jitter=float("nan")), "jitter is nan; it must be"),
        (lambda: AugmentSpec(saturation=1.0), "saturation is 1.0; it must be less than 1"),
        (lambda: AugmentSpec(hue=0.6), "hue is 0.6; it must be less than or equal to 0.5"),
        (lambda: AugmentSpec(randaugment_n=-1), "randaugment_n is -1; it must be greater than or equal to 0"),
        (lambda: AugmentSpec(randaugment_m=11), "randaugment_m is 11; it must be less than or equal to 10"),
        (lambda: AugmentSpec(erase=2.0), "erase is 2.0; it must be less than or equal to 1"),
        (lambda: AugmentSpec(mixup_alpha=-1.0), "mixup_alpha is -1.0; it must be greater than or equal to 0"),
        (lambda: AugmentSpec(cutmix_alpha=-1.0), "cutmix_alpha is -1.0; it must be greater than or equal to 0"),
        (lambda: AugmentSpec(mixup_prob=1.1), "mixup_prob is 1.1; it must be less than or equal to 1"),
        (lambda: AugmentSpec(scale_min=0.0), "scale_min is 0.0; it must be greater than 0"),
        (lambda: AugmentSpec(ratio_max=0.5), "ratio_max is 0.5; it must be greater than or equal to 1"),
        (lambda: AugmentSpec(flip=1.5), "flip is 1.5; it must be less than or equal to 1"),
        (lambda: _dataset(split=0), "split is 0; it must be greater than or equal to 1"),
        (lambda: _dataset(name="hmdb51", split=4), "split: layout 'hmdb51' has splits up to 3, not 4"),
        (lambda: _dataset(name="ucf102"), "name: unknown layout 'ucf102'; known: auto, ucf101"),
        (lambda: _dataset(root=""), "root is ''; it must have at least 1 character"),
        (DatasetSpec, "root is missing; DatasetSpec needs it"),
        (lambda: _dataset(short_side=2), "short_side is 2; it must be greater than or equal to 16"),
        (lambda: _dataset(store="zip"), "store is 'zip'; it must be 'auto', 'raw', 'i420', 'jpeg', 'tinyvideo' or 'lm"),
        (lambda: _dataset(flow="guess"), "flow is 'guess'; it must be 'none', 'listed', 'dis', 'farneback', 'tvl1' or"),
        (lambda: _dataset(frames_kept="uniform:0"), "frames_kept: 'uniform:0' is neither `all` nor `uniform:N` with a"),
        (lambda: _dataset(frames_kept="half"), "frames_kept: 'half' is neither `all` nor `uniform:N` with a number N"),
        (lambda: _dataset(flow="raft"), "flow_weights: flow raft needs the path of its weights"),
        (
            lambda: _dataset(frames_kept="uniform:1", flow="dis"),
            "flow: one frame has no optical flow; keep at least un",
        ),
        (
            lambda: _dataset(held_out="18of3"),
            "held_out: '18of3' is not a share of the groups; write how many of how ma",
        ),
        (lambda: _dataset(held_out="a third"), "held_out: 'a third' is not a share of the groups; write how many of h"),
        (lambda: _dataset(folds=1), "folds is 1; it must be greater than or equal to 2"),
        (lambda: _dataset(folds=3, fold=4), "fold: fold 4 is not one of the 3 `folds`"),
        (lambda: _dataset(group_pattern="("), "group_pattern: '(' is not a regular expression: "),
        (
            lambda: _dataset(group_pattern="a{99999999999}"),
            "group_pattern: 'a{99999999999}' is not a regular expression: the repetition",
        ),
        (lambda: _dataset(group_pattern="(" * 500 + ")" * 500), "group_pattern: '(((("),
        (lambda: _dataset(group_pattern="a" * 1001), "group_pattern is 'aaaaaaaa"),
        (lambda: _dataset(validation="some"), "validation is 'some'; it must be 'groups', 'kfold', 'official' or 'ran"),
        (lambda: SplitSpec(fold=6), "fold: fold 6 is not one of the 5 `folds`"),
    ],
)
def test_a_value_out_of_range_is_named(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(DatasetError) as caught:
        make()
    assert isinstance(caught.value, InvalidSpecError)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_within_a_larger_model_the_path_of_the_field_is_kept() -> None:
    class Outer(BaseModel):
        inner: DatasetSpec
        clip: ClipSettings

    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {"root": "x", "name": "kinetics", "split": 2}, "clip": {"frames": 0}})
    assert [found["loc"] for found in caught.value.errors()] == [("inner", "split"), ("clip", "frames")]


def test_a_path_is_kept_as_text() -> None:
    spec = DatasetSpec(root=Path("videos") / "ucf101", flow="raft", flow_weights=Path("raft.pth"))
    assert (spec.root, spec.flow_weights) == (str(Path("videos/ucf101")), "raft.pth")
    assert spec == DatasetSpec(root=spec.root, flow="raft", flow_weights="raft.pth")


def test_a_clip_consists_of_its_modality_unless_said_otherwise() -> None:
    assert ClipSpec().inputs == ("rgb",)
    assert ClipSpec(modality="flow").inputs == ("flow",)
    assert ClipSpec(modality="flow", inputs=("rgb", "flow")).inputs == ("rgb", "flow")


@pytest.mark.parametrize("spec", [ClipSpec(frames=8), AugmentSpec(erase=0.5), DatasetSpec(root="x", fold=2)])
def test_a_specification_is_a_value(spec: Any) -> None:
    again = pickle.loads(pickle.dumps(spec))  # noqa: S301 - our own bytes
    assert again == spec
    assert hash(again) == hash(spec)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(spec, next(iter(type(spec).model_fields)), 1)


def test_the_span_counts_both_ends() -> None:
    assert ClipSpec(frames=1, stride=7).span == 1
    assert ClipSpec(frames=4, stride=3).span == 10


@pytest.mark.parametrize(("kept", "most"), [("all", None), ("uniform:1", 1), ("uniform:64", 64)])
def test_what_is_kept_is_a_number_of_frames(kept: str, most: int | None) -> None:
    assert _dataset(frames_kept=kept).most_frames == most


def test_a_data_set_of_ones_own_is_not_bound_by_what_a_study_may_ask() -> None:
    wide = _dataset(name="ucf101", split=100, split_seed=-3, folds=101, short_side=1080, group_pattern="x" * 501)
    assert (wide.split, wide.split_seed, wide.folds, wide.short_side) == (100, -3, 101, 1080)
