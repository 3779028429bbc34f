"""Augmentation: against torch's own resizing, closed forms, and properties of the random crop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from data import AugmentSpec, ClipSpec
from data.augment import Crop, apply_crops, centre_crop, training_crop
from data.seeding import generator

PLAIN = ClipSpec(frames=2, size=20, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
"""Leaves pixels in 0..255."""


def noise(*shape: int) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(values)


def box(frames: torch.Tensor, crop: Crop) -> torch.Tensor:
    """Return the box of one video (T, H, W, 3) as a batch of one."""
    vertical = slice(crop.top, crop.top + crop.height)
    return frames[None, :, vertical, crop.left : crop.left + crop.width]


@pytest.mark.parametrize("crop_size", [(20, 20), (37, 31), (9, 14), (20, 50)])
def test_cropping_and_resizing_equal_torchs_antialiased_interpolation(
    crop_size: tuple[int, int],
) -> None:
    video = noise(2, 40, 52, 3)
    crop = Crop(top=2, left=1, height=crop_size[0], width=crop_size[1])
    (ours,) = apply_crops(box(video, crop), [crop], PLAIN)
    pixels = box(video, crop)[0].permute(0, 3, 1, 2).float()
    theirs = interpolate(pixels, size=(20, 20), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, theirs.transpose(0, 1), atol=1e-2, rtol=0)


def test_videos_of_different_sizes_share_a_batch() -> None:
    small, large = noise(2, 10, 14, 3), noise(2, 30, 20, 3)
    crops = [
        Crop(top=0, left=0, height=10, width=14),
        Crop(top=0, left=0, height=30, width=20, flip=True),
    ]
    canvas = torch.full((2, 2, 30, 20, 3), 255, dtype=torch.uint8)
    canvas[0, :, :10, :14] = small
    canvas[1] = large
    together = apply_crops(canvas, crops, PLAIN)
    apart = [apply_crops(v[None], [c], PLAIN) for v, c in zip((small, large), crops, strict=True)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-3, rtol=0)


def test_a_flip_mirrors_left_and_right_and_nothing_else() -> None:
    frames = noise(1, 2, 30, 30, 3)
    crop = Crop(top=0, left=0, height=30, width=30)
    straight = apply_crops(frames, [crop], PLAIN)
    mirrored = apply_crops(frames, [replace(crop, flip=True)], PLAIN)
    torch.testing.assert_close(mirrored, straight.flip(-1), atol=1e-3, rtol=0)


def test_axes_and_normalisation() -> None:
    frames = torch.zeros((1, 3, 8, 8, 3), dtype=torch.uint8)
    frames[0, 1, :4, :, 2] = 255  # blue, second frame, upper half
    clip = ClipSpec(frames=3, size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    (ours,) = apply_crops(frames, [Crop(top=0, left=0, height=8, width=8)], clip)
    assert ours.shape == (3, 3, 8, 8)
    assert ours.dtype == torch.float32
    black = torch.tensor([-0.1 / 0.5, -0.2 / 0.25, -0.3 / 0.2])
    expected = black[:, None, None, None].repeat(1, 3, 8, 8)
    expected[2, 1, :4] = (1 - 0.3) / 0.2
    torch.testing.assert_close(ours, expected)


def test_brightness_and_contrast_in_closed_form() -> None:
    frames = torch.full((2, 1, 4, 4, 3), 100, dtype=torch.uint8)
    frames[:, :, :2] = 50
    crop = Crop(top=0, left=0, height=4, width=4)
    clip = replace(PLAIN, size=4, frames=1)
    crops = [replace(crop, brightness=1.2, contrast=0.5), replace(crop, brightness=3.0)]
    first, second = apply_crops(frames, crops, clip)
    # The mean is 75; half the contrast gives 62.5 and 87.5, then times 1.2.
    torch.testing.assert_close(first[:, :, :2], torch.full((3, 1, 2, 4), 75.0))
    torch.testing.assert_close(first[:, :, 2:], torch.full((3, 1, 2, 4), 105.0))
    torch.testing.assert_close(second[:, :, 2:], torch.full((3, 1, 2, 4), 255.0))  # clamped


def test_autocast_does_not_round_pixels() -> None:
    frames, crop = noise(1, 2, 30, 30, 3), Crop(top=0, left=0, height=30, width=30)
    plain = apply_crops(frames, [crop], PLAIN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = apply_crops(frames, [crop], PLAIN)
    assert torch.equal(plain, cast)


SIDES = st.integers(4, 300)
AUGMENTS = st.builds(
    AugmentSpec,
    scale_min=st.floats(0.05, 1.0),
    ratio_max=st.floats(1.0, 3.0),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    brightness=st.floats(0, 0.9),
    contrast=st.floats(0, 0.9),
)


@given(height=SIDES, width=SIDES, augment=AUGMENTS, seed=st.integers(0, 5))
def test_a_random_crop_keeps_to_its_specification(height: int, width: int, augment: AugmentSpec, seed: int) -> None:
    crop = training_crop(height, width, augment, generator("crop", seed))
    assert crop == training_crop(height, width, augment, generator("crop", seed))
    assert 0 <= crop.top <= height - crop.height
    assert 0 <= crop.left <= width - crop.width
    assert crop.height >= 1
    assert crop.width >= 1
    # A box is rounded to pixels, so its ratio may leave the range by what half a pixel does.
    assert (crop.width - 0.5) / (crop.height + 0.5) <= augment.ratio_max
    assert (crop.height - 0.5) / (crop.width + 0.5) <= augment.ratio_max
    assert abs(crop.brightness - 1) <= augment.brightness
    assert abs(crop.contrast - 1) <= augment.contrast
    if augment.flip in {0.0, 1.0}:
        assert crop.flip == bool(augment.flip)


def test_random_crops_fill_their_ranges() -> None:
    augment = AugmentSpec(scale_min=0.25, flip=0.3, brightness=0.4)
    crops = [training_crop(120, 160, augment, generator("range", n)) for n in range(2000)]
    areas = np.array([c.height * c.width / (120 * 160) for c in crops])
    assert 0.24 < areas.min() < 0.27
    assert areas.max() > 0.9
    assert min(c.top for c in crops) == min(c.left for c in crops) == 0
    assert max(c.top + c.height for c in crops) == 120
    assert abs(np.mean([c.flip for c in crops]) - 0.3) < 0.04
    brightness = [c.brightness for c in crops]
    assert 0.6 <= min(brightness) < 0.62
    assert 1.38 < max(brightness) <= 1.4


def test_the_centre_crop_is_a_centred_square() -> None:
    crop = centre_crop(128, 170, ClipSpec(crop_fraction=0.875))
    assert (crop.height, crop.width, crop.top, crop.left) == (112, 112, 8, 29)
    whole = centre_crop(48, 64, ClipSpec(crop_fraction=1.0))
    assert (whole.height, whole.width, whole.top, whole.left) == (48, 48, 0, 8)
