"""Tests that a model sees the direction of time.

A bright square moves to the left or to the right, wrapping around, from a random position. Both directions show the
same frames: only their order differs.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import models

from .tiny import COSTLY, DEEP, every, open_branches, plain, tiny

FRAMES, SIZE, SPEED = 8, 32, 4
BLIND = frozenset({"c2d_r50"})
# They need more steps than a test can take: TimeSformer's attention over time starts closed, and in Hiera frames see
# each other from the third stage on, where clips as small as these have very few places.
LATE = frozenset({"hiera_b", "timesformer_b"})
LONG = COSTLY | {"i3d_r50", "r2plus1d_18_hara", "r2plus1d_r50", "s3d_g"}
"""Models that take long, and those whose layers over time another one here has too."""


def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return `count` clips that go to the right (0), then as many that go to the left (1)."""
    start = torch.randint(SIZE, (2, count), generator=generator)
    clip = torch.zeros(count, 3, FRAMES, SIZE, SIZE)
    for number in range(count):
        row, column = (int(value) for value in start[:, number])
        for frame in range(FRAMES):
            rows = (row + torch.arange(8)) % SIZE
            columns = (column + SPEED * frame + torch.arange(8)) % SIZE
            clip[number, :, frame, rows[:, None], columns] = 1.0
    return torch.cat((clip, clip.flip(2))) * 2 - 0.5, torch.arange(2).repeat_interleave(count)


def test_both_directions_show_the_same_frames() -> None:
    clip, _ = batch(1, torch.Generator().manual_seed(0))
    right, left = ({frame.numpy().tobytes() for frame in one.unbind(1)} for one in clip)
    assert right == left
    assert len(right) == FRAMES


@pytest.mark.parametrize("name", every(slow=LONG, but=BLIND | LATE | DEEP))
def test_direction_is_learned(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        options = {"alpha": 2} if "alpha" in models.model_info(name).defaults() else {}
        attends = "attention_dropout" in models.model_info(name).defaults()
        if name == "swin3d_t":
            options = {"width": 32}
        model = tiny(name, num_classes=2, **plain(name), **options)
        open_branches(model)
        # Attention wants smaller steps, and more of them.
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3 if attends else 3e-3)
        right = 0
        for _ in range(300 if attends else 150):
            # Every batch is new: what is right before a step was not learned by heart.
            clip, targets = batch(8, generator)
            logits = model(clip)
            right = right + 1 if (logits.argmax(1) == targets).float().mean() > 0.9 else 0
            if right == 3:
                return
            optimizer.zero_grad()
            F.cross_entropy(logits, targets).backward()
            optimizer.step()
    pytest.fail(f"{name} does not see the direction of motion")


@pytest.mark.parametrize("name", sorted(BLIND))
def test_a_model_that_sees_no_order_stays_at_chance(name: str) -> None:
    model = tiny(name, num_classes=2, dropout=0.0)
    open_branches(model)
    with torch.no_grad():
        for seed in range(3):
            right, left = model(batch(4, torch.Generator().manual_seed(seed))[0]).chunk(2)
            # Whatever its weights, of a clip and its reversal it gets one right and one wrong.
            torch.testing.assert_close(right, left, rtol=1e-3, atol=1e-4)
