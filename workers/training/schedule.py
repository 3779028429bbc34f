"""The learning rate as a closed form of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from hpo.spec.training import TrainingConfig


def learning_rate(config: TrainingConfig, *, step: int, total_steps: int) -> float:
    """Return the learning rate of update `step` (from 0) out of `total_steps`.

    With w = round(warmup_fraction * total_steps): a line through lr / (w + 1) at step 0 and `lr` at step w, then
    `lr`, or half a cosine that would reach 0 at `total_steps` (Loshchilov & Hutter, SGDR, 2017, equation 5).
    """
    warmup = round(config.warmup_fraction * total_steps)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))
