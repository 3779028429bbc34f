"""Which floating point format a run computes in, and the scale of its loss where that is fp16."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from hpo.spec import TrainingConfig

from ..errors import DivergedError
from .reproducibility import Runtime

Precision = Literal["fp32", "bf16", "fp16"]
_FORMATS: Final[Mapping[Precision, torch.dtype]] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(config: TrainingConfig, runtime: Runtime) -> Precision:
    """Return the format that is wanted where the GPU was found to compute it correctly, else fp32.

    `auto` takes bf16 before fp16, which needs a scale of the loss and leaves out updates.

    A CPU trains in fp32 whatever is wanted. PyTorch's bf16 weight gradient of a convolution over time reads memory that
    was never written when the clip is shorter than the kernel there (2.15.0: random NaN at 1 frame and kernel 3x1x1).

    `fp32` leaves PyTorch's own default for convolutions on a GPU, which is TF32.
    """
    if runtime.device.type != "cuda":
        return "fp32"
    if config.precision in ("auto", "bf16") and runtime.bf16:
        return "bf16"
    return "fp16" if config.precision in ("auto", "fp16") and runtime.fp16 else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which the forward pass runs."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_FORMATS[precision])


class LossScale:
    """The factor of the loss of a run in fp16, whose smallest gradients would be zero without one.

    It doubles after `GROWTH_INTERVAL` updates in a row, and is halved when a gradient is not finite; that update is
    left out. So it moves as `torch.amp.GradScaler` does, which is not used for two reasons: with a fused SGD its first
    update, if left out, leaves the momentum unset (PyTorch 2.15), and what it knows of an update that failed in the
    middle cannot be forgotten. All ranks of a run see the same gradients, and so leave out the same updates.
    """

    FIRST: Final = 2.0**16
    LEAST: Final = 2.0**-10
    """A gradient that overflows even so was above 60 millions."""
    GROWTH_INTERVAL: Final = 2000

    def __init__(self) -> None:
        self.value = self.FIRST
        self.left_out = 0
        """Updates left out so far."""
        self._in_a_row = 0
        self._is_finite = True

    def unscale(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Divide the gradients of `parameters` by the scale; return their length (), not finite if one of them is not.

        On a GPU this waits for the backward pass.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.value)
        length = nn.utils.get_total_norm(gradients)
        self._is_finite = math.isfinite(float(length))
        return length

    def take(self) -> bool:
        """Return whether the gradients that :meth:`unscale` saw last may change the weights, and move the scale.

        Raises:
            DivergedError: they are not finite although the scale is at its least.
        """
        if self._is_finite:
            self._in_a_row += 1
            if self._in_a_row == self.GROWTH_INTERVAL:
                self.value, self._in_a_row = min(2 * self.value, self.FIRST**2), 0
            return True
        self.value, self._in_a_row, self.left_out = self.value / 2, 0, self.left_out + 1
        if self.value < self.LEAST:
            raise DivergedError(
                f"the gradients are not finite in fp16, however small the loss is made ({self.left_out} updates were "
                "left out); a lower learning rate may help, or precision: fp32"
            )
        return False

    def state(self) -> dict[str, Any]:
        """Return what :meth:`load` needs, as plain values."""
        return {"value": self.value, "in_a_row": self._in_a_row, "left_out": self.left_out}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from where :meth:`state` was taken."""
        self.value, self._in_a_row, self.left_out = state["value"], state["in_a_row"], state["left_out"]
