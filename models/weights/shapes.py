"""Fitting a file's tensors to the shapes of a model: input channels, frames, axes of length one, MATLAB's order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError
from .files import MatLayer
from .layout import Reading

MATCONVNET = "MatConvNet"
"""The layout of MatConvNet's files."""

_RGB = 3
# Epsilon of PyTorch's batch norms; MatConvNet's moments hold the root of variance plus epsilon.
_EPSILON = 1e-5


def same_kind(theirs: Tensor, ours: Tensor) -> bool:
    """Return whether `theirs` may be copied into `ours`: integers are no weights, but codes of a quantized model."""
    return theirs.is_floating_point() or not ours.is_floating_point()


def fitted(theirs: Tensor, ours: Tensor, *, seq_len: int) -> Tensor:
    """Return `theirs` in the shape of `ours` if a rule applies, else unchanged.

    Rules: axes of length one are added or removed; a kernel (O, I, H, W) is repeated over frames and divided by their
    number; a kernel over red, green and blue becomes one over C channels: repeated and divided for a stack of
    `seq_len` frames, else the average of the three colours for each channel.
    """
    if theirs.shape == ours.shape or theirs.ndim < 2:
        return theirs
    kernel = _same_axes(theirs, ours)
    if kernel.ndim == ours.ndim and kernel.ndim >= 4 and kernel.shape[1] == _RGB != ours.shape[1]:
        kernel = _other_channels(kernel, ours.shape[1], seq_len)
    return kernel


def _same_axes(theirs: Tensor, ours: Tensor) -> Tensor:
    if theirs.ndim == ours.ndim:
        return theirs
    if [size for size in theirs.shape[2:] if size != 1] == [size for size in ours.shape[2:] if size != 1]:
        return theirs.reshape(*theirs.shape[:2], *ours.shape[2:])
    if theirs.ndim == 4 and ours.ndim == 5:
        from .inflation import inflate_kernel

        return inflate_kernel(theirs, ours.shape[2])
    return theirs


def _other_channels(kernel: Tensor, channels: int, seq_len: int) -> Tensor:
    rest = [1] * (kernel.ndim - 2)
    if channels == _RGB * seq_len:
        return kernel.repeat(1, seq_len, *rest) / seq_len
    return kernel.mean(1, keepdim=True).repeat(1, channels, *rest)


def matconvnet_reading(layers: Iterable[MatLayer], ours: Mapping[str, Tensor]) -> Reading:
    """Return the reading of a residual network of images of MatConvNet; see :func:`matconvnet_state`."""
    layers = list(layers)
    state = with_stem_bias(matconvnet_state(layers, ours), ours)
    note = "its layers were matched by their order, kinds and shapes, since their names are free in MatConvNet"
    return Reading(network="ResNet", state=state, names={name: name for name in state}, notes=(note,))


def matconvnet_state(layers: Iterable[MatLayer], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of a residual network of images from its layers in MatConvNet.

    Layers are matched in the order of the file, which is the same in both networks except for the projections: these
    may come before or after their block. Temporal convolutions in `ours` are skipped. A layer of another kind or shape
    than its counterpart raises a WeightsError that names both.
    """
    layers = list(layers)
    last = [name.removesuffix(".weight") for name in ours if name.endswith(".weight") and "temporal_conv" not in name]
    problems = []
    for order in (_projections_first(last), last):
        problem = _mismatch(layers, order, ours)
        if problem is None:
            state: dict[str, Tensor] = {}
            for layer, name in zip(layers, order, strict=True):
                state |= _layer_state(layer, name, ours[f"{name}.weight"])
            return state
        problems.append(problem)
    raise WeightsError(problems[0])


def with_stem_bias(state: Mapping[str, Tensor], ours: Iterable[str]) -> dict[str, Tensor]:
    """Return the tensors with the bias of the first convolution as `ours` has it, without changing the function.

    Some of these files have it and some do not. A missing one is zero; one too many moves into the mean of the batch
    norm that follows, which subtracts it again (exactly, outside training).
    """
    bias, mean = "conv1.bias", "bn1.running_mean"
    fixed = dict(state)
    has_bias = bias in ours
    if has_bias and bias not in state:
        fixed[bias] = torch.zeros_like(state["bn1.bias"])
    if not has_bias and bias in state and mean in state:
        fixed[mean] = state[mean] - fixed.pop(bias)
    return fixed


def _projections_first(names: list[str]) -> list[str]:
    """Return the names with every ``layer.block.downsample.*`` before the other layers of its block."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        key = ".".join(name.split(".")[:2]) if name.startswith("layer") else name
        blocks.setdefault(key, []).append(name)
    return [name for block in blocks.values() for name in sorted(block, key=lambda name: ".downsample." not in name)]


def _mismatch(layers: list[MatLayer], names: list[str], ours: Mapping[str, Tensor]) -> str | None:
    if len(layers) != len(names):
        return f"it has {len(layers)} layers with parameters, the model {len(names)}"
    for index, (layer, name) in enumerate(zip(layers, names, strict=True)):
        weight = ours[f"{name}.weight"]
        theirs = [size for size in reversed(layer.arrays[0].shape) if size != 1]
        shape = [size for size in weight.shape if size != 1]
        is_last = index == len(names) - 1
        if (layer.kind == "norm") != (weight.ndim == 1) or theirs[is_last:] != shape[is_last:]:
            return f"{layer.name} of the file is a {layer.kind} of shape {theirs}, {name} of the model has {shape}"
    return None


def _layer_state(layer: MatLayer, name: str, weight: Tensor) -> dict[str, Tensor]:
    first, *others = (_tensor(array) for array in layer.arrays)
    if layer.kind == "conv":
        # The last layer's number of classes may differ.
        state = {f"{name}.weight": first.reshape(-1, *weight.shape[1:])}
        return state | ({f"{name}.bias": others[0].reshape(-1)} if others else {})
    state = {f"{name}.weight": first.reshape(-1), f"{name}.bias": others[0].reshape(-1)}
    if len(others) > 1:
        mean, deviation = others[1].reshape(2, -1)
        variance = (deviation.double().square() - _EPSILON).clamp_min(0).to(deviation.dtype)
        state |= {f"{name}.running_mean": mean.clone(), f"{name}.running_var": variance}
    return state


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Return a MATLAB array (H, W, I, O) as a tensor (O, I, H, W): its axes are reversed, then H and W swapped."""
    reversed_axes = np.ascontiguousarray(array.transpose())
    tensor = torch.from_numpy(np.asarray(reversed_axes, dtype=np.float32))
    return tensor.transpose(-1, -2).contiguous() if tensor.ndim >= 3 else tensor
