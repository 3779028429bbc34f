"""Mixup and CutMix: the clips' and the labels' shares agree, and the loss is the one of the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from data import AugmentSpec
from data.clips.mixing import Mix, draw_mix
from data.stores.protocol import Box

LABELS = torch.tensor([0, 2, 1])


def mixes(augment: AugmentSpec, count: int = 1000, size: int = 32) -> list[Mix | None]:
    return [draw_mix(augment, size=size, parts=(0, 0, n)) for n in range(count)]


def test_mixup_is_a_weighted_mean_with_the_batch_backwards() -> None:
    clips = torch.rand(3, 2, 4, 8, 8)
    mix = Mix(share=0.7)
    expected = torch.stack([0.7 * clips[n] + 0.3 * clips[2 - n] for n in range(3)])
    torch.testing.assert_close(mix.clips(clips), expected)
    shares = [[0.7, 0.3, 0.0], [0.0, 0.0, 1.0], [0.3, 0.7, 0.0]]
    torch.testing.assert_close(mix.targets(LABELS, 3), torch.tensor(shares))


def test_cutmix_takes_the_same_box_of_all_frames() -> None:
    clips = torch.rand(3, 2, 4, 8, 8)
    mix = Mix(share=1 - 6 / 64, box=Box(top=1, left=3, height=2, width=3))
    mixed = mix.clips(clips)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[1:3, 3:6] = True
    assert torch.equal(mixed[..., inside], clips.flip(0)[..., inside])
    assert torch.equal(mixed[..., ~inside], clips[..., ~inside])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_weighted_sum_of_both_labels_losses(smoothing: float) -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    mix = Mix(share=0.7)
    ours = cross_entropy(logits, mix.targets(LABELS, 4), label_smoothing=smoothing)
    own = cross_entropy(logits, LABELS, label_smoothing=smoothing)
    other = cross_entropy(logits, LABELS.flip(0), label_smoothing=smoothing)
    torch.testing.assert_close(ours, 0.7 * own + 0.3 * other)


def test_the_label_that_counts_is_that_of_the_larger_part() -> None:
    assert Mix(share=0.5).labels(LABELS).tolist() == [0, 2, 1]
    assert Mix(share=0.49).labels(LABELS).tolist() == [1, 2, 0]


def test_nothing_is_mixed_unless_asked_for() -> None:
    assert set(mixes(AugmentSpec(), 20)) == {None}
    assert set(mixes(AugmentSpec(mixup_alpha=1.0, mixup_prob=0.0), 20)) == {None}


def test_shares_are_drawn_from_the_beta_distribution() -> None:
    shares = [mix.share for mix in mixes(AugmentSpec(mixup_alpha=0.8), 3000) if mix is not None]
    assert len(shares) == 3000
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)).
    assert abs(np.mean(shares) - 0.5) < 0.03
    assert np.var(shares) == pytest.approx(1 / (4 * 2.6), rel=0.1)


def test_a_box_that_sticks_out_is_cut_off_and_its_share_is_its_area() -> None:
    found = [mix for mix in mixes(AugmentSpec(cutmix_alpha=1.0), 500) if mix is not None]
    assert len(found) == 500
    for mix in found:
        box = mix.box
        assert box is not None
        assert 0 <= box.top <= box.top + box.height <= 32
        assert 0 <= box.left <= box.left + box.width <= 32
        assert mix.share == 1 - box.height * box.width / 32**2
    assert any(mix.box is not None and mix.box.height != mix.box.width for mix in found)


def test_both_are_switched_between_and_repeat() -> None:
    augment = AugmentSpec(mixup_alpha=0.8, cutmix_alpha=1.0, mixup_prob=0.8, mixup_switch_prob=0.25)
    found = mixes(augment, 2000)
    assert found == mixes(augment, 2000)
    mixed = [mix for mix in found if mix is not None]
    assert abs(len(mixed) / 2000 - 0.8) < 0.04
    assert abs(np.mean([mix.box is not None for mix in mixed]) - 0.25) < 0.05
