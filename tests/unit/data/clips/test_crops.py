"""Boxes: properties for every size of frame, and where the published protocols put them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import AugmentSpec, InvalidSpecError
from data.clips.crops import CROPS, training_box, view_boxes
from data.seeding import Draws
from data.stores.protocol import Box

SIDES = st.integers(4, 300)
AUGMENTS = st.builds(
    AugmentSpec,
    crop=st.sampled_from(["random_resized", "multi_scale", "corner", "short_side"]),
    scale_min=st.floats(0.05, 1.0),
    ratio_max=st.floats(1.0, 3.0),
    short_side_max=st.floats(1.2, 3.0),
)


def corner(box: Box) -> tuple[int, int]:
    return box.top, box.left


def drawn(height: int, width: int, augment: AugmentSpec, count: int) -> list[Box]:
    return [training_box(height, width, augment, Draws("box", n)) for n in range(count)]


@given(height=SIDES, width=SIDES, augment=AUGMENTS, seed=st.integers(0, 5))
def test_a_random_box_lies_in_the_frame(height: int, width: int, augment: AugmentSpec, seed: int) -> None:
    box = training_box(height, width, augment, Draws("box", seed))
    assert box == training_box(height, width, augment, Draws("box", seed))
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width
    assert min(box.height, box.width) >= 1
    if augment.crop == "random_resized":
        # A box is rounded to pixels, so its ratio may leave the range by what half a pixel does.
        assert (box.width - 0.5) / (box.height + 0.5) <= augment.ratio_max
        assert (box.height - 0.5) / (box.width + 0.5) <= augment.ratio_max
    elif augment.crop != "multi_scale":
        assert box.height == box.width


def test_random_resized_boxes_fill_their_ranges() -> None:
    boxes = drawn(120, 160, AugmentSpec(scale_min=0.25), 2000)
    areas = np.array([box.height * box.width / (120 * 160) for box in boxes])
    assert 0.24 < areas.min() < 0.27
    assert areas.max() > 0.9
    assert min(box.top for box in boxes) == min(box.left for box in boxes) == 0
    assert max(box.top + box.height for box in boxes) == 120


def test_multi_scale_boxes_have_tsns_sides_and_places() -> None:
    boxes = drawn(256, 340, AugmentSpec(crop="multi_scale"), 4000)
    sides = [int(256 * scale) for scale in (1, 0.875, 0.75, 0.66)]
    pairs = {(one, other) for i, one in enumerate(sides) for j, other in enumerate(sides) if abs(i - j) <= 1}
    assert {(box.width, box.height) for box in boxes} == pairs
    for width, height in pairs:
        # TSN steps in whole quarters and so misses the far edge by up to three pixels; ours touches it.
        across, down = (340 - width) // 4, (256 - height) // 4
        steps = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)]
        theirs = np.array([(down * y, across * x) for x, y in steps])
        ours = np.array(sorted({corner(b) for b in boxes if (b.width, b.height) == (width, height)}))
        distances = abs(ours[:, None] - theirs[None]).max(-1)
        assert distances.min(1).max() <= 3
        assert distances.min(0).max() <= 3


def test_corner_boxes_are_squares_in_five_places() -> None:
    boxes = drawn(100, 140, AugmentSpec(crop="corner"), 500)
    assert {(box.height, box.width) for box in boxes} == {(side, side) for side in (100, 87, 75, 66)}
    of_three_quarters = {corner(box) for box in boxes if box.height == 75}
    # The middle of 25 is rounded up, that of 65 too.
    assert of_three_quarters == {(0, 0), (0, 65), (25, 0), (25, 65), (13, 33)}


def test_short_side_boxes_are_slowfasts_crops_before_resizing() -> None:
    boxes = drawn(256, 340, AugmentSpec(crop="short_side"), 2000)
    # Resizing the short side to 256..320 and cutting 224 is cutting 224/320..224/256 of it and resizing.
    sides = [box.height for box in boxes]
    assert (min(sides), max(sides)) == (round(256 * 224 / 320), 224)
    assert max(box.left + box.width for box in boxes) == 340


@given(height=SIDES, width=SIDES, fraction=st.floats(0.1, 1.0), crops=st.sampled_from(CROPS))
def test_views_lie_in_the_frame(height: int, width: int, fraction: float, crops: int) -> None:
    boxes = view_boxes(height, width, crops, fraction)
    assert len(boxes) == crops
    short = min(height, width)
    for box, _ in boxes:
        assert box.height == box.width == (short if crops == 3 else max(1, round(short * fraction)))
        assert 0 <= box.top <= height - box.height
        assert 0 <= box.left <= width - box.width
    assert [flip for _, flip in boxes] == [False] * min(crops, 5) + [True] * (crops - min(crops, 5))


def test_one_crop_is_a_centred_square() -> None:
    assert view_boxes(128, 170, 1, 0.875) == [(Box(top=8, left=29, height=112, width=112), False)]
    assert view_boxes(48, 64, 1, 1.0) == [(Box(top=0, left=8, height=48, width=48), False)]


@pytest.mark.parametrize("long", [300, 301, 340, 341])
def test_three_crops_are_slowfasts_along_the_long_side(long: int) -> None:
    offsets = [0, math.ceil((long - 256) / 2), long - 256]
    assert [corner(box) for box, _ in view_boxes(256, long, 3, 0.875)] == [(0, at) for at in offsets]
    assert [corner(box) for box, _ in view_boxes(long, 256, 3, 0.875)] == [(at, 0) for at in offsets]


def test_ten_crops_are_the_corners_and_the_centre_and_their_mirror_images() -> None:
    ten = view_boxes(128, 170, 10, 0.875)
    places = [(0, 0), (0, 58), (16, 0), (16, 58), (8, 29)]
    assert [corner(box) for box, _ in ten] == places * 2
    assert [box for box, _ in ten[:5]] == [box for box, _ in view_boxes(128, 170, 5, 0.875)]


def test_other_numbers_of_crops_are_refused() -> None:
    with pytest.raises(InvalidSpecError, match=r"crops is 4; it must be one of \(1, 3, 5, 10\)"):
        view_boxes(128, 170, 4, 0.875)
