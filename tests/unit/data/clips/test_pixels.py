"""Pixels: against torch's own resizing and torchvision's kernels, and closed forms for what flow vectors do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as oracle

from data import ClipSpec
from data.clips.augment import Change, Operation
from data.clips.pixels import FLOW_STD, flow_clips, rgb_clips, warped, warped_smoothly
from data.stores.protocol import Box

PLAIN = ClipSpec(frames=2, size=20, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
"""Leaves pixels in 0..255."""
TURNS = [
    Operation(name="rotate", amount=30.0),
    Operation(name="rotate", amount=-20.0),
    Operation(name="shear_x", amount=0.3),
    Operation(name="shear_y", amount=-0.3),
    Operation(name="translate_x", amount=0.2),
    Operation(name="translate_y", amount=-0.25),
]


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def whole(frames: torch.Tensor) -> Change:
    """Return the change that does nothing but resize."""
    return Change(box=Box(top=0, left=0, height=frames.shape[1], width=frames.shape[2]))


def rgb(frames: torch.Tensor, change: Change, clip: ClipSpec = PLAIN) -> torch.Tensor:
    made: torch.Tensor
    (made,) = rgb_clips([frames], [change], clip)
    return made


@pytest.mark.parametrize("size", [(20, 20), (37, 31), (9, 14), (20, 50)])
def test_resizing_is_torchs_antialiased_interpolation_to_the_nearest_byte(size: tuple[int, int]) -> None:
    frames = noise(2, *size, 3)
    ours = rgb(frames, whole(frames))
    theirs = interpolate(frames.permute(0, 3, 1, 2).double(), size=(20, 20), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours.double(), theirs.transpose(0, 1), atol=1.01, rtol=0)
    assert torch.equal(ours, ours.round())


def test_videos_of_different_sizes_share_a_batch() -> None:
    boxes = [noise(2, 10, 14, 3), noise(2, 30, 20, 3)]
    changes = [whole(boxes[0]), replace(whole(boxes[1]), flip=True)]
    together = rgb_clips(boxes, changes, PLAIN)
    apart = [rgb_clips([box], [change], PLAIN) for box, change in zip(boxes, changes, strict=True)]
    assert torch.equal(together, torch.cat(apart))


def test_a_flip_mirrors_left_and_right_and_nothing_else() -> None:
    frames = noise(2, 30, 30, 3)
    mirrored = rgb(frames, replace(whole(frames), flip=True))
    assert torch.equal(mirrored, rgb(frames, whole(frames)).flip(-1))


def test_axes_and_normalisation() -> None:
    frames = torch.zeros((3, 16, 16, 3), dtype=torch.uint8)
    frames[1, :8, :, 2] = 255  # blue, second frame, upper half
    clip = ClipSpec(frames=3, size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    ours = rgb(frames, whole(frames), clip)
    assert ours.shape == (3, 3, 16, 16)
    assert ours.dtype == torch.float32
    black = torch.tensor([-0.1 / 0.5, -0.2 / 0.25, -0.3 / 0.2])
    expected = black[:, None, None, None].repeat(1, 3, 16, 16)
    expected[2, 1, :8] = (1 - 0.3) / 0.2
    torch.testing.assert_close(ours, expected)


def test_autocast_does_not_round_pixels() -> None:
    frames = noise(2, 30, 30, 3)
    plain = rgb(frames, whole(frames), ClipSpec(frames=2, size=20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rgb(frames, whole(frames), ClipSpec(frames=2, size=20))
    assert torch.equal(plain, cast)


def test_brightness_and_contrast_in_closed_form() -> None:
    frames = torch.full((1, 20, 20, 3), 100, dtype=torch.uint8)
    frames[:, :10] = 50
    change = whole(frames)
    # 60 and 120 after brightness; their mean is 90, and half the contrast leaves 75 and 105. Bytes are cut off.
    first = rgb(frames, replace(change, brightness=1.2, contrast=0.5))
    torch.testing.assert_close(first[:, :, :10], torch.full((3, 1, 10, 20), 75.0), atol=1, rtol=0)
    torch.testing.assert_close(first[:, :, 10:], torch.full((3, 1, 10, 20), 105.0), atol=1, rtol=0)
    second = rgb(frames, replace(change, brightness=3.0))
    assert (second[:, :, 10:] == 255).all()


def test_colours_change_as_torchvisions_do_with_one_mean_for_the_clip() -> None:
    frames = noise(3, 20, 20, 3)
    frames[1] //= 3  # a dark frame, so that its own mean would show
    change = replace(whole(frames), brightness=1.3, contrast=0.6, saturation=1.4, hue=-0.1)
    tall = frames.permute(3, 0, 1, 2).reshape(3, 60, 20)
    tall = oracle.adjust_contrast(oracle.adjust_brightness(tall, 1.3), 0.6)
    tall = oracle.adjust_hue(oracle.adjust_saturation(tall, 1.4), -0.1)
    assert torch.equal(rgb(frames, change), tall.view(3, 3, 20, 20).float())


def test_the_box_that_is_erased_is_the_same_in_all_frames_and_mean_grey() -> None:
    clip, frames = ClipSpec(frames=4, size=20), noise(4, 20, 20, 3)
    box = Box(top=3, left=5, height=6, width=9)
    ours = rgb(frames, replace(whole(frames), erase=box), clip)
    expected = oracle.erase(rgb(frames, whole(frames), clip), 3, 5, 6, 9, torch.zeros(1))
    assert torch.equal(ours, expected)


def flow_of(x: float, y: float, *, frames: int = 2, size: tuple[int, int] = (20, 20)) -> torch.Tensor:
    """Return a field of one vector everywhere, in bytes above 127.5."""
    return torch.tensor([127.5 + x, 127.5 + y]).to(torch.uint8).expand(frames, *size, 2).contiguous()


def flow(fields: torch.Tensor, change: Change, stack: list[list[int]] | None = None) -> torch.Tensor:
    """Return (2 * pairs, T, 20, 20), in bytes around 0."""
    stacks = torch.tensor([stack or [[n] for n in range(len(fields))]])
    made: torch.Tensor
    (made,) = flow_clips([fields], stacks, [change], PLAIN)
    return made * (255 * FLOW_STD)


def test_flow_is_centred_and_scaled() -> None:
    fields = flow_of(30.5, -9.5)
    (made,) = flow_clips([fields], torch.tensor([[[0], [1]]]), [whole(fields)], PLAIN)
    assert made.shape == (2, 2, 20, 20)
    torch.testing.assert_close(made[0], torch.full((2, 20, 20), 30.5 / 255 / 0.226))
    torch.testing.assert_close(made[1], torch.full((2, 20, 20), -9.5 / 255 / 0.226))


def test_a_flip_negates_the_horizontal_components_only() -> None:
    fields = noise(2, 20, 20, 2)
    straight, flipped = flow(fields, whole(fields)), flow(fields, replace(whole(fields), flip=True))
    torch.testing.assert_close(flipped[0], -straight[0].flip(-1))
    torch.testing.assert_close(flipped[1], straight[1].flip(-1))


def test_vectors_are_scaled_with_the_picture() -> None:
    fields = flow_of(30.5, -9.5, size=(10, 40))
    made = flow(fields, whole(fields))
    torch.testing.assert_close(made[0], torch.full((2, 20, 20), 30.5 / 2))
    torch.testing.assert_close(made[1], torch.full((2, 20, 20), -9.5 * 2))


def test_the_mean_vector_of_each_field_can_be_taken_out() -> None:
    fields = noise(3, 20, 20, 2)
    stacks = torch.tensor([[[0, 1], [1, 2]]])
    plain, centred = (
        flow_clips([fields], stacks, [whole(fields)], PLAIN.model_copy(update={"flow_centring": how}))
        for how in ("zero", "mean")
    )
    torch.testing.assert_close(centred, plain - plain.mean((3, 4), keepdim=True))


def test_stacks_interleave_x_and_y_of_the_fields_they_name() -> None:
    fields = torch.stack([flow_of(10 * n + 0.5, -10 * n - 0.5, frames=1)[0] for n in range(4)])
    made = flow(fields, whole(fields), stack=[[0, 1, 2], [1, 2, 3]])
    assert made.shape == (6, 2, 20, 20)
    expected = [[0.5, -0.5, 10.5, -10.5, 20.5, -20.5], [10.5, -10.5, 20.5, -20.5, 30.5, -30.5]]
    torch.testing.assert_close(made[:, :, 7, 7], torch.tensor(expected).T)


def spot(x: float, y: float, side: int = 81) -> torch.Tensor:
    """Return a bell around (x, y), (1, 1, side, side)."""
    across = torch.arange(side, dtype=torch.float64)
    bell = torch.exp(-((across[None] - x) ** 2 + (across[:, None] - y) ** 2) / 18)
    return bell[None, None] * 200


def centre_of(picture: torch.Tensor) -> torch.Tensor:
    across = torch.arange(picture.shape[-1], dtype=torch.float64)
    weights = picture[0, 0]
    return torch.stack([(weights * across).sum(), (weights * across[:, None]).sum()]) / weights.sum()


@pytest.mark.parametrize("operation", TURNS, ids=lambda op: f"{op.name} {op.amount}")
def test_what_moves_pixels_moves_vectors_alike(operation: Operation) -> None:
    # A spot goes from a to b; both pictures are changed; where the spots are now says what the vector must be.
    a, b = torch.tensor([36.0, 44.0]), torch.tensor([47.0, 40.0])
    before, after = (warped(spot(float(place[0]), float(place[1])), operation, [0.0]) for place in (a, b))
    moved = centre_of(after) - centre_of(before)
    clip = PLAIN.model_copy(update={"size": 81})
    fields = flow_of(*(b - a).tolist(), size=(81, 81))
    (made,) = flow_clips([fields], torch.tensor([[[0], [1]]]), [replace(whole(fields), operations=(operation,))], clip)
    ours = (made * (255 * FLOW_STD))[:, 0, 40, 40].double()
    # Bytes hold halves: the field is half a byte off the vector, at most.
    torch.testing.assert_close(ours, moved, atol=0.75, rtol=0.02)


@pytest.mark.parametrize(
    ("operation", "place"),
    [
        (Operation(name="translate_x", amount=0.25), (60, 30)),
        (Operation(name="translate_y", amount=-0.25), (40, 10)),
        (Operation(name="shear_x", amount=0.3), (40 + 0.3 * -10, 30)),
        (Operation(name="shear_y", amount=0.3), (40, 30)),
        (
            Operation(name="rotate", amount=30.0),
            (40 + 10 * math.sin(math.radians(30)), 40 - 10 * math.cos(math.radians(30))),
        ),
    ],
)
def test_a_point_above_the_centre_goes_where_the_operation_says(
    operation: Operation, place: tuple[float, float]
) -> None:
    for function in (warped, warped_smoothly):
        (x, y) = centre_of(function(spot(40, 30, side=81), operation, [0.0])).tolist()
        assert (x, y) == pytest.approx(place, abs=0.3)


@pytest.mark.parametrize("operation", TURNS, ids=str)
def test_smooth_and_plain_interpolation_agree_on_smooth_pictures(operation: Operation) -> None:
    places = torch.linspace(0, 3, 40)
    smooth = (128 + 100 * torch.sin(places[:, None] + 0.5 * places)).round().to(torch.uint8)
    pictures = torch.stack([smooth, smooth.flip(0), smooth.T])[None]
    plain, bicubic = (f(pictures, operation, [10.0, 200.0, 60.0]).float() for f in (warped, warped_smoothly))
    assert (plain - bicubic).abs().median() <= 1
    assert (plain - bicubic).abs().mean() < 3, "edges differ in how much of the fill they hold"


def test_bicubic_interpolation_is_that_of_keys() -> None:
    """Half a pixel to the right: (Keys, 1981) with a = -0.75 and what lies outside filled."""
    row, fill = noise(1, 1, 16, 16).float(), 60.0
    ours = warped_smoothly(row.to(torch.uint8), Operation(name="translate_x", amount=0.5 / 16), [fill])
    a = -0.75
    near = (a + 2) * 0.5**3 - (a + 3) * 0.5**2 + 1
    far = a * 1.5**3 - 5 * a * 1.5**2 + 8 * a * 1.5 - 4 * a
    padded = torch.nn.functional.pad(row, (2, 1), value=fill)
    expected = sum(w * padded[..., i : i + 16] for i, w in enumerate((far, near, near, far)))
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(ours.float(), expected.clamp(0, 255), atol=0.51, rtol=0)


def test_a_clip_is_moved_by_the_interpolation_of_its_change() -> None:
    frames, operation = noise(2, 20, 20, 3), TURNS[0]
    change = replace(whole(frames), operations=(operation,))
    plain, bicubic = rgb(frames, change), rgb(frames, replace(change, interpolation="bicubic"))
    assert torch.equal(
        bicubic, warped_smoothly(frames.permute(0, 3, 1, 2), operation, [0.0] * 3).float().transpose(0, 1)
    )
    assert not torch.equal(plain, bicubic)


def test_moved_pictures_are_filled_with_the_mean_colour() -> None:
    clip, frames = PLAIN.model_copy(update={"mean": (0.4, 0.6, 0.2), "std": (1.0, 1.0, 1.0)}), noise(2, 20, 20, 3)
    ours = rgb(frames, replace(whole(frames), operations=(Operation(name="translate_x", amount=0.5),)), clip)
    torch.testing.assert_close(ours[..., :10], torch.zeros(3, 2, 20, 10), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours[..., 10:], rgb(frames, whole(frames), clip)[..., :10])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_clips() -> None:
    frames, fields = noise(2, 37, 31, 3), noise(2, 37, 31, 2)
    names = ("sharpness", "equalize", "autocontrast", "posterize", "solarize")
    operations = (TURNS[0], *(Operation(name=name, amount=4.0) for name in names))
    change = replace(whole(frames), flip=True, brightness=1.2, hue=0.1)
    for each in (change, replace(change, operations=operations[:1])):
        (ours,) = rgb_clips([frames.cuda()], [each], PLAIN)
        torch.testing.assert_close(ours.cpu(), rgb(frames, each), atol=6.0, rtol=0)
        stack = torch.tensor([[[0, 1], [1, 1]]])
        (ours,) = flow_clips([fields.cuda()], stack.cuda(), [each], PLAIN)
        (theirs,) = flow_clips([fields], stack, [each], PLAIN)
        torch.testing.assert_close(ours.cpu(), theirs, atol=0.05, rtol=0)
    (made,) = rgb_clips([frames.cuda()], [replace(change, operations=operations)], PLAIN)
    assert torch.isfinite(made).all()
