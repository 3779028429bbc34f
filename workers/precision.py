"""Which floating point format a run computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from hpo.spec.training import TrainingConfig

from .reproducibility import Runtime

Precision = Literal["fp32", "bf16"]


def resolve(config: TrainingConfig, runtime: Runtime) -> Precision:
    """Choose the format: bf16 where it is wanted and, on a GPU, was found to compute correctly.

    `fp32` leaves PyTorch's own default for convolutions on a GPU, which is TF32.
    """
    on_gpu = runtime.device.type == "cuda"
    if config.precision == "auto":
        return "bf16" if on_gpu and runtime.bf16 else "fp32"
    if config.precision == "bf16" and on_gpu and not runtime.bf16:
        return "fp32"
    return config.precision


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Give the context in which the forward pass runs."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
