"""The optimizer of a training run."""

from __future__ import annotations

from typing import Any

import torch

from hpo.spec.training import TrainingConfig


def make_optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.Optimizer:
    """Make what `config` asks for, over the groups of `VideoModel.param_groups`.

    On a CPU its step is one pass over each tensor ("fused"), which was measured 2.4 (SGD) and 3 to 5 (AdamW) times as
    fast as PyTorch's default; elsewhere PyTorch chooses.
    """
    fused = True if all(parameter.is_cpu for group in groups for parameter in group["params"]) else None
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)
    # Without momentum Nesterov's step is plain SGD, which PyTorch wants to be told.
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
