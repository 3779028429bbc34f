"""Batch-norm statistics over many batches, in place of the running ones, for a model that is about to be validated.

While a model trains, its running statistics are an average over weights that have changed since ("precise batch norm":
Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3). Layers in evaluation mode are frozen: theirs stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from data import ClipBatch

from .precision import Precision, autocast

Statistics = dict[str, Tensor]
"""Buffers by their names in the state dict of a model."""


@dataclass(slots=True)
class _Population:
    """Mean and variance of all values that a layer saw, by the values of each batch (Chan et al., 1979)."""

    layer: _BatchNorm
    count: int = 0
    mean: Tensor = field(init=False)
    squares: Tensor = field(init=False)
    """Sum of squared distances from the mean."""

    def __post_init__(self) -> None:
        shape, device = self.layer.num_features, _mean_of(self.layer).device
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.squares = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, batch: Tensor) -> None:
        """Add a batch (N, C, ...) whose mean and unbiased variance are the layer's running statistics."""
        count = batch.numel() // batch.shape[1]
        total = self.count + count
        shift = _mean_of(self.layer).double() - self.mean
        self.mean += shift * (count / total)
        self.squares += _variance_of(self.layer).double() * (count - 1) + shift**2 * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """The unbiased one, as PyTorch's running variance is."""
        return self.squares / (self.count - 1)


def has_statistics(model: nn.Module) -> bool:
    """Return whether a layer of `model`, which is in training mode, has running statistics that move."""
    return any(True for _ in _moving_layers(model))


def reestimated(
    model: nn.Module,
    batches: Iterable[ClipBatch],
    *,
    device: torch.device,
    precision: Precision,
    most_clips: int | None = None,
) -> Statistics:
    """Return the running statistics that `batches` give with the weights as they are; the model stays as it was.

    Each is the mean, or the unbiased variance, of all values that a layer sees. The layers normalise by each batch as
    in training; the rest of the network, such as dropout, is in evaluation mode and draws no random numbers. Layers
    that no batch reaches are left out.

    Args:
        model: in training mode; its layers in evaluation mode are frozen.
        batches: clips as in a validation, several videos each.
        most_clips: clips that the model sees at once, where a batch has more.
    """
    populations = {name: _Population(layer) for name, layer in _moving_layers(model)}
    with _watched(model, populations.values()), torch.no_grad():
        for batch in batches:
            for part in batch.parts(most_clips or len(batch.ids)):
                with autocast(precision, device):
                    model(part.clips)
    found: Statistics = {}
    for name, population in populations.items():
        if population.count > 1:
            layer = population.layer
            found[f"{name}.running_mean"] = population.mean.to(_mean_of(layer).dtype)
            found[f"{name}.running_var"] = population.variance.to(_variance_of(layer).dtype)
    return found


def _moving_layers(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and layer.training and layer.running_mean is not None:
            yield name, layer


@contextmanager
def _watched(model: nn.Module, populations: Iterable[_Population]) -> Iterator[None]:
    """Have each layer add what it sees to its population; put modes, buffers and momenta back afterwards."""
    modes = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        stack.callback(_set_modes, modes)
        model.eval()
        for population in populations:
            layer = population.layer
            kept = {name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)}
            stack.callback(_put_back, layer, kept, layer.momentum)
            layer.momentum = 1.0  # the running statistics become those of the last batch
            layer.train()
            handle = layer.register_forward_hook(lambda _, inputs, __, population=population: population.add(*inputs))
            stack.callback(handle.remove)
        yield


def _set_modes(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


def _put_back(layer: _BatchNorm, buffers: Statistics, momentum: float | None) -> None:
    layer.momentum = momentum
    for name, value in buffers.items():
        layer.get_buffer(name).copy_(value)


def _mean_of(layer: _BatchNorm) -> Tensor:
    assert layer.running_mean is not None  # noqa: S101 - `_moving_layers` chose it
    return layer.running_mean


def _variance_of(layer: _BatchNorm) -> Tensor:
    assert layer.running_var is not None  # noqa: S101 - `_moving_layers` chose it
    return layer.running_var
