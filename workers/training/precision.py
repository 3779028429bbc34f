"""Which floating point format a run computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from hpo.spec import TrainingConfig

from .reproducibility import Runtime

Precision = Literal["fp32", "bf16"]


def choose_precision(config: TrainingConfig, runtime: Runtime) -> Precision:
    """Return the format: bf16 where it is wanted and the GPU was found to compute it correctly, else fp32.

    A CPU trains in fp32 whatever is wanted. PyTorch's bf16 weight gradient of a convolution over time reads memory that
    was never written when the clip is shorter than the kernel there (2.15.0: random NaN at 1 frame and kernel 3x1x1).

    `fp32` leaves PyTorch's own default for convolutions on a GPU, which is TF32.
    """
    wanted = config.precision in ("auto", "bf16")
    return "bf16" if wanted and runtime.device.type == "cuda" and runtime.bf16 else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which the forward pass runs."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
