"""Batch norms that normalise by all clips that several processes see at once (SyncBatchNorm), on a CPU too.

PyTorch's `nn.SyncBatchNorm` refuses tensors of a CPU, and its DDP refuses the layer there; on a CPU the project's tests
compare several processes with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

M = TypeVar("M", bound=nn.Module)


class JointNorm(_BatchNorm):
    """A batch norm over all processes; one class for each kind of device."""

    is_apart = False
    """Whether it normalises by the clips of this process alone."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the clips (N, C, ...) normalised, and let the running statistics move as those of a batch norm."""
        found: Tensor = self._joint(input) if self.training and not self.is_apart else _BatchNorm.forward(self, input)
        return found

    def _joint(self, input: Tensor) -> Tensor:
        raise NotImplementedError


class _GpuJointNorm(JointNorm, nn.SyncBatchNorm):
    def _joint(self, input: Tensor) -> Tensor:
        found: Tensor = nn.SyncBatchNorm.forward(self, input)
        return found


class _CpuJointNorm(JointNorm):
    """The same from sums over all processes."""

    _check_input_dim = nn.SyncBatchNorm._check_input_dim

    def _joint(self, input: Tensor) -> Tensor:
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        count = _sum(torch.tensor(float(input.numel() // input.shape[1])))
        mean = _sum(input.sum(axes)) / count
        centred = input - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._move(mean.detach(), variance.detach() * (count / (count - 1)))
        normalised: Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        return normalised * self.weight.view(shape) + self.bias.view(shape) if self.affine else normalised

    def _move(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None  # noqa: S101 - statistics are tracked
        assert self.running_mean is not None  # noqa: S101 - likewise
        assert self.running_var is not None  # noqa: S101 - likewise
        self.num_batches_tracked.add_(1)
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Sum(torch.autograd.Function):
    """Adds up a tensor of all processes; so a loss of any of them depends on the tensors of all."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)
    return total


def with_joint_norms(model: M, device: torch.device) -> M:
    """Return `model`, on `device`, with every batch norm turned into a joint one; tensors and their names stay."""
    converted: M = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in converted.modules():
        if isinstance(module, nn.SyncBatchNorm):
            kind: type[JointNorm] = _CpuJointNorm if device.type == "cpu" else _GpuJointNorm
            module.__class__ = kind  # type: ignore[assignment]  # both have the tensors of SyncBatchNorm
    return converted


def keep_from_compilers() -> None:
    """Have blocks that are compiled from now on end before each joint norm, and go on after it.

    What processes say to each other stays in the order of the model then, also where only some of them compile.
    """
    for kind in (_CpuJointNorm, _GpuJointNorm):
        kind._joint = torch.compiler.disable(kind._joint)  # type: ignore[method-assign]


@contextmanager
def norms_apart(model: nn.Module) -> Iterator[None]:
    """Have each batch norm see the clips of this process alone during the block."""
    joint = [module for module in model.modules() if isinstance(module, JointNorm)]
    for norm in joint:
        norm.is_apart = True
    try:
        yield
    finally:
        for norm in joint:
            norm.is_apart = False
