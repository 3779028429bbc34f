"""Specifications refuse values that make no sense, and name the field."""

from __future__ import annotations

from typing import Any

import pytest

from data import AugmentSpec, ClipSpec, DatasetError, DatasetSpec


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: ClipSpec(frames=0), "frames"),
        (lambda: ClipSpec(stride=0), "stride"),
        (lambda: ClipSpec(size=0), "size"),
        (lambda: ClipSpec(padding="mirror"), "padding"),  # type: ignore[arg-type]  # the mistake
        (lambda: ClipSpec(crop_fraction=0.0), "crop_fraction"),
        (lambda: ClipSpec(std=(0.2, 0.0, 0.2)), "std"),
        (lambda: ClipSpec(sampling="random"), "sampling"),  # type: ignore[arg-type]  # the mistake
        (lambda: ClipSpec(stack=0), "stack"),
        (lambda: ClipSpec(frames=10, stack=3), "frames"),
        (lambda: ClipSpec(gap=0), "gap"),
        (lambda: ClipSpec(inputs=()), "inputs"),
        (lambda: ClipSpec(inputs=("flow", "rgb")), "inputs"),
        (lambda: ClipSpec(flow_pairs=0), "flow_pairs"),
        (lambda: ClipSpec(flow_centring="median"), "flow_centring"),  # type: ignore[arg-type]  # the mistake
        (lambda: AugmentSpec(crop="round"), "crop"),  # type: ignore[arg-type]  # the mistake
        (lambda: AugmentSpec(scales=()), "scales"),
        (lambda: AugmentSpec(scales=(1.5,)), "scales"),
        (lambda: AugmentSpec(short_side_min=0.9), "short_side_min"),
        (lambda: AugmentSpec(short_side_min=2.0), "short_side_min"),
        (lambda: AugmentSpec(saturation=1.0), "saturation"),
        (lambda: AugmentSpec(hue=0.6), "hue"),
        (lambda: AugmentSpec(randaugment_n=-1), "randaugment_n"),
        (lambda: AugmentSpec(randaugment_m=11), "randaugment_m"),
        (lambda: AugmentSpec(erase=2.0), "erase"),
        (lambda: AugmentSpec(mixup_alpha=-1.0), "mixup_alpha"),
        (lambda: AugmentSpec(cutmix_alpha=-1.0), "cutmix_alpha"),
        (lambda: AugmentSpec(mixup_prob=1.1), "mixup_prob"),
        (lambda: AugmentSpec(scale_min=0.0), "scale_min"),
        (lambda: AugmentSpec(scale_min=0.9, scale_max=0.8), "scale_min"),
        (lambda: AugmentSpec(scale_max=1.5), "scale_max"),
        (lambda: AugmentSpec(ratio_max=0.5), "ratio_max"),
        (lambda: AugmentSpec(flip=1.5), "flip"),
        (lambda: AugmentSpec(brightness=1.0), "brightness"),
        (lambda: AugmentSpec(contrast=-0.1), "contrast"),
        (lambda: DatasetSpec(name="ucf101", root="x", split=0), "split"),
        (lambda: DatasetSpec(name="ucf101", root="x", short_side=2), "short_side"),
        (lambda: DatasetSpec(name="ucf101", root="x", store="zip"), "store"),  # type: ignore[arg-type]  # the mistake
        (lambda: DatasetSpec(name="ucf101", root="x", flow="guess"), "flow"),  # type: ignore[arg-type]  # the mistake
        (lambda: DatasetSpec(name="ucf101", root="x", frames_kept="uniform:0"), "frames_kept"),
        (lambda: DatasetSpec(name="ucf101", root="x", flow="raft"), "flow_weights"),
        (lambda: DatasetSpec(name="ucf101", root="x", frames_kept="half"), "frames_kept"),
        (lambda: DatasetSpec(name="ucf101", root="x", frames_kept="uniform:1", flow="dis"), "frames_kept"),
        (lambda: DatasetSpec(name="ucf101", root="x", held_out="18of3"), "held_out"),
        (lambda: DatasetSpec(name="ucf101", root="x", held_out="a third"), "held_out"),
        (lambda: DatasetSpec(name="ucf101", root="x", folds=1), "folds"),
        (lambda: DatasetSpec(name="ucf101", root="x", folds=3, fold=4), "fold"),
        (
            lambda: DatasetSpec(name="ucf101", root="x", validation="some"),  # type: ignore[arg-type]  # the mistake
            "validation",
        ),
    ],
)
def test_a_value_out_of_range_is_named(make: Any, field: str) -> None:
    with pytest.raises(DatasetError, match=f"^{field} is .*; it must be "):
        make()


def test_the_span_counts_both_ends() -> None:
    assert ClipSpec(frames=1, stride=7).span == 1
    assert ClipSpec(frames=4, stride=3).span == 10
