"""How weights are updated: the optimizer, its groups of parameters, and the learning rate of every update."""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from hpo.spec import TrainingConfig
from hpo.spec.tasks.milestones import milestones
from models import VideoModel

ONE_CYCLE_START: Final = 1 / 25
"""Where `one_cycle` begins, as a share of the highest rate, if the configuration does not say: PyTorch's choice."""
ONE_CYCLE_END: Final = ONE_CYCLE_START / 1e4
"""Where it ends."""


class Recipe:
    """The optimizer of one run and the learning rates that it is given.

    Rates are a function of the update's number, so the optimizer's own state is all that a resumed run needs.
    """

    def __init__(self, model: VideoModel, config: TrainingConfig, *, total_steps: int) -> None:
        """Set up the update of every parameter of `model`, for a run of `total_steps` updates."""
        groups = model.param_groups(
            weight_decay=config.weight_decay,
            head_lr_mult=config.head_lr_multiplier,
            bias_lr_mult=config.bias_lr_multiplier,
            layer_decay=config.layer_decay,
            decay_tables=config.decay_tables,
            # PyTorch's fused SGD takes groups whose parameters have all been updated before, or none.
            by_layer=config.unfreeze_every > 0,
        )
        self.optimizer = make_optimizer(groups, config)
        self._config = config
        self._total_steps = total_steps

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of update `step` (from 0), before the multipliers of groups of parameters."""
        return learning_rate(self._config, step=step, total_steps=self._total_steps)

    def set_learning_rate(self, step: int) -> None:
        """Give each group of parameters its learning rate for update `step` (from 0)."""
        rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_mult"]


def learning_rate(config: TrainingConfig, *, step: int, total_steps: int) -> float:
    """Return the learning rate of update `step` (from 0) out of `total_steps`.

    With w = round(warmup_fraction * total_steps) it rises on the line through `warmup_start_share * lr` just before the
    first update and `lr` at update w, and then follows the schedule; `one_cycle` has a rise of its own. `lr` stands for
    the rate of the batch size (`lr_scaling`; Goyal et al., Accurate, Large Minibatch SGD, 2017, section 2.1).
    """
    peak = config.lr * _scale(config)
    if config.schedule == "one_cycle":
        return peak * _one_cycle(config, step, total_steps)
    warmup = round(config.warmup_fraction * total_steps)
    if step < warmup:
        start = config.warmup_start_share
        # Rounding may add the last digit to the highest rate.
        return min(peak, peak * (1 - start) * (step + 1) / (warmup + 1) + peak * start)
    lowest = config.min_lr_share
    if config.schedule == "cosine":
        # Half a cosine to the lowest rate at `total_steps` (Loshchilov & Hutter, SGDR, 2017, equation 5).
        falling = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))
        return peak * (lowest + (1 - lowest) * falling)
    return peak * max(lowest, math.pow(config.lr_gamma, _decays(config, step, warmup, total_steps)))


def _scale(config: TrainingConfig) -> float:
    ratio = config.batch_size / config.lr_batch_size
    return {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[config.lr_scaling]


def _decays(config: TrainingConfig, step: int, warmup: int, total_steps: int) -> float:
    """Return how many times the rate of update `step` has been multiplied by `lr_gamma`.

    Milestones and steps count from the beginning of the run, the warm-up included.
    """
    if config.schedule == "multistep":
        return sum(step >= round(share * total_steps) for share in milestones(config.lr_milestones))
    if config.schedule == "step":
        return step // max(1, round(config.lr_step * total_steps))
    return (step - warmup) / (total_steps - warmup) if config.schedule == "exponential" else 0.0


def _one_cycle(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Return the share of the highest rate: two half cosines, up to the end of the warm-up and down to the last update.

    They are PyTorch's `OneCycleLR` (Smith and Topin, Super-Convergence, 2018), without its cycle of the momentum.
    """
    start = config.warmup_start_share or ONE_CYCLE_START
    ends = {"up": config.warmup_fraction * total_steps - 1, "down": total_steps - 1.0}
    if step <= ends["up"]:
        low, high, done = start, 1.0, step / ends["up"] if ends["up"] else 1.0
    else:
        low, high = 1.0, config.min_lr_share or ONE_CYCLE_END
        done = (step - ends["up"]) / (ends["down"] - ends["up"])
    return high + (low - high) / 2 * (1 + math.cos(math.pi * done))


def make_optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer that `config` asks for, over the groups of `VideoModel.param_groups`.

    On a CPU its step is one pass over each tensor ("fused"), which was measured 2.4 (SGD) and 3 to 5 (AdamW) times as
    fast as PyTorch's default; elsewhere PyTorch chooses.
    """
    fused = True if all(parameter.is_cpu for group in groups for parameter in group["params"]) else None
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)
    # Without momentum Nesterov's step is plain SGD; PyTorch refuses the combination.
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
