"""The random changes of a training clip: ranges, shares, and RandAugment's operations against Pillow's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from data import AugmentSpec
from data.clips.augment import GEOMETRIC, OPERATIONS, Change, Operation, training_change
from data.clips.colour import adjust
from data.seeding import Draws
from data.stores.protocol import Box


def drawn(augment: AugmentSpec, count: int = 2000, size: int = 112) -> list[Change]:
    return [training_change(120, 160, size=size, augment=augment, draws=Draws("n", n)) for n in range(count)]


def test_nothing_but_a_crop_and_a_flip_is_done_unless_asked_for() -> None:
    for change in drawn(AugmentSpec(), 50):
        assert change == Change(box=change.box, flip=change.flip)
        assert not change.recolours


def test_the_same_draws_give_the_same_change() -> None:
    augment = AugmentSpec(jitter=0.4, hue=0.2, randaugment_n=2, erase=0.5)
    assert drawn(augment, 20) == drawn(augment, 20)


def test_flips_and_colours_fill_their_ranges() -> None:
    changes = drawn(AugmentSpec(flip=0.3, jitter=0.4, saturation=0.6, hue=0.1))
    assert abs(np.mean([change.flip for change in changes]) - 0.3) < 0.04
    for field, middle, reach in (("brightness", 1, 0.4), ("contrast", 1, 0.4), ("saturation", 1, 0.6), ("hue", 0, 0.1)):
        values = np.array([getattr(change, field) for change in changes])
        assert abs(values - middle).max() <= reach
        assert abs(values - middle).max() > 0.99 * reach
        assert abs(values.mean() - middle) < 0.06 * reach
    assert all(change.recolours for change in changes)


def test_erased_boxes_keep_to_random_erasings_ranges() -> None:
    erased = [change.erase for change in drawn(AugmentSpec(erase=0.25), 4000)]
    boxes = [box for box in erased if box is not None]
    assert abs(len(boxes) / 4000 - 0.25) < 0.03
    areas = np.array([box.height * box.width for box in boxes]) / 112**2
    assert 0.018 < areas.min() < 0.03
    assert 0.3 < areas.max() < 0.34
    assert all(0 <= box.top <= 112 - box.height and 0 <= box.left <= 112 - box.width for box in boxes)
    ratios = np.array([box.height / box.width for box in boxes])
    assert 0.27 < ratios.min() < ratios.max() < 3.7


def test_randaugment_draws_every_operation_as_often_and_both_signs() -> None:
    changes = drawn(AugmentSpec(randaugment_n=2, randaugment_m=5.0), 4000)
    assert {len(change.operations) for change in changes} == {2}
    operations = [operation for change in changes for operation in change.operations]
    counts = Counter(operation.name for operation in operations)
    assert set(counts) == set(OPERATIONS)
    assert max(abs(count - 8000 / 14) for count in counts.values()) < 5 * np.sqrt(8000 / 14)
    amounts = {name: {round(o.amount, 6) for o in operations if o.name == name} for name in OPERATIONS}
    assert amounts["shear_x"] == amounts["shear_y"] == {0.15, -0.15}
    assert amounts["translate_x"] == {round(75 / 331, 6), -round(75 / 331, 6)}
    assert amounts["rotate"] == {15.0, -15.0}
    assert amounts["brightness"] == amounts["contrast"] == {0.55, 1.45}
    assert amounts["posterize"] == {6}
    assert amounts["solarize"] == {127.5}
    assert amounts["identity"] == amounts["equalize"] == {0.0}


def test_noise_moves_the_strength_and_keeps_it_in_range() -> None:
    augment = AugmentSpec(randaugment_n=1, randaugment_m=8.0, randaugment_noise=1.5)
    operations = [operation for change in drawn(augment, 20_000) for operation in change.operations]
    strengths = np.array([abs(o.amount) / 3 for o in operations if o.name == "rotate"])
    expected = np.clip(np.random.default_rng(0).normal(8.0, 1.5, 100_000), 0, 10)
    assert strengths.max() == 10
    assert (strengths == 10).mean() == pytest.approx((expected == 10).mean(), abs=0.03)
    for share in (0.05, 0.25, 0.5, 0.75):
        assert np.quantile(strengths, share) == pytest.approx(np.quantile(expected, share), abs=0.2)


def test_without_noise_the_draws_are_those_of_earlier_releases() -> None:
    (change,) = drawn(AugmentSpec(randaugment_n=3, erase=1.0), 1)
    assert [operation.name for operation in change.operations] == ["sharpness", "brightness", "translate_y"]
    assert [operation.amount for operation in change.operations] == pytest.approx([0.19, 0.19, 0.9 * 150 / 331])
    assert change.erase == Box(top=61, left=13, height=49, width=64)
    assert change.interpolation == "bilinear"


PILLOW: dict[str, Callable[[Image.Image, Any], Image.Image]] = {
    "identity": lambda image, _: image,
    "brightness": lambda image, amount: ImageEnhance.Brightness(image).enhance(amount),
    "saturation": lambda image, amount: ImageEnhance.Color(image).enhance(amount),
    "contrast": lambda image, amount: ImageEnhance.Contrast(image).enhance(amount),
    "sharpness": lambda image, amount: ImageEnhance.Sharpness(image).enhance(amount),
    "posterize": lambda image, amount: ImageOps.posterize(image, int(amount)),
    "solarize": ImageOps.solarize,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
AMOUNTS = {"posterize": (4.0, 7.0), "solarize": (100.0, 200.0)}


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - GEOMETRIC))
def test_operations_of_colour_are_pillows(name: str) -> None:
    rng = np.random.default_rng(1)
    pixels = np.clip(rng.normal(110, 35, (24, 24, 3)), 20, 220).astype(np.uint8)
    for amount in AMOUNTS.get(name, (0.4, 1.7)):
        expected = np.asarray(PILLOW[name](Image.fromarray(pixels), amount))
        picture = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        (ours,) = adjust(picture, Operation(name=name, amount=amount))
        # The two round at different places.
        difference = abs(ours.permute(1, 2, 0).numpy().astype(int) - expected)
        assert np.quantile(difference, 0.99) <= 2
        assert difference.mean() < 0.7


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - GEOMETRIC))
def test_equal_pixels_of_different_frames_stay_equal(name: str) -> None:
    frames = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8))
    frames[1, :, 8:] = 30  # makes the second frame darker than the others
    frames[:, :, :6, :6] = frames[0, :, :6, :6]
    changed = adjust(frames, Operation(name=name, amount=AMOUNTS.get(name, (1.7,))[0]))
    assert changed.shape == frames.shape
    for frame in changed[1:]:
        assert torch.equal(frame[:, :5, :5], changed[0, :, :5, :5])
