"""Mixup and CutMix: every clip of a training batch with another one, and their labels with them.

Sources: Zhang et al., mixup, ICLR 2018, section 2; Yun et al., CutMix, ICCV 2019, section 3.1. As in timm, a
batch is mixed with itself read backwards and one share holds for all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..seeding import generator
from ..specs import AugmentSpec
from ..stores.protocol import Box


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """How one batch is mixed: each clip keeps `share` of itself, all over or outside of `box`."""

    share: float
    box: Box | None = None
    """CutMix: the box that is taken from the other clip, in pixels of the resized picture."""

    def clips(self, clips: Tensor, partners: Tensor | None = None) -> Tensor:
        """Return clips (N, C, T, size, size), each mixed with its partner.

        Args:
            partners: int64, of each of the first clips, which are returned, the place of its partner; by default all
                clips are mixed with those from the end on. The same holds for labels.
        """
        own, others = _pairs(clips, partners)
        if self.box is None:
            return own.mul(self.share).add_(others, alpha=1 - self.share)
        mixed, box = own.clone(), self.box
        inside = (..., slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
        mixed[inside] = others[inside]
        return mixed

    def targets(self, labels: Tensor, num_classes: int, partners: Tensor | None = None) -> Tensor:
        """Return the class probabilities (N, num_classes) of the mixed clips, given labels (N,)."""
        classes = torch.arange(num_classes, device=labels.device)
        own, other = (one[:, None] == classes for one in _pairs(labels, partners))
        return self.share * own + (1 - self.share) * other

    def labels(self, labels: Tensor, partners: Tensor | None = None) -> Tensor:
        """Return for each clip the label of its larger part: its own, where the halves are equal."""
        own, others = _pairs(labels, partners)
        return own if self.share >= 0.5 else others


def _pairs(tensor: Tensor, partners: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what belongs to the clips, and what to their partners."""
    if partners is None:
        return tensor, tensor.flip(0)
    return tensor[: len(partners)], tensor[partners]


def draw_mix(augment: AugmentSpec, *, size: int, parts: tuple[int | str, ...]) -> Mix | None:
    """Return how the batch that `parts` name is mixed, or None if it is not."""
    if augment.mixup_alpha == augment.cutmix_alpha == 0:
        return None
    rng = generator("mix", *parts)
    whether, which = rng.random(2)
    if whether >= augment.mixup_prob:
        return None
    cuts = augment.mixup_alpha == 0 or (augment.cutmix_alpha > 0 and which < augment.mixup_switch_prob)
    alpha = augment.cutmix_alpha if cuts else augment.mixup_alpha
    share = float(rng.beta(alpha, alpha))
    if not cuts:
        return Mix(share=share)
    # Around a centre drawn anywhere: where it sticks out it is cut off, and less is taken.
    side = round(size * math.sqrt(1 - share))
    top, left = (int(rng.integers(size)) - side // 2 for _ in range(2))
    bottom, right = min(size, top + side), min(size, left + side)
    top, left = max(0, top), max(0, left)
    box = Box(top=top, left=left, height=bottom - top, width=right - left)
    return Mix(share=1 - box.height * box.width / size**2, box=box)
