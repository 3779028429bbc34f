"""Batch-norm statistics over many batches, in place of the running ones, for a model that is about to be validated.

While a model trains, its running statistics are an average over weights that have changed since ("precise batch norm":
Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3). Layers in evaluation mode are frozen: theirs stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from data import ClipBatch

from .joint_norm import norms_apart
from .parallel import ALONE, World, dealt
from .precision import Precision, autocast

Statistics = dict[str, Tensor]
"""Buffers by their names in the state dict of a model."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one layer saw of one part of a batch."""

    count: int
    """Values of each channel."""
    mean: Tensor
    variance: Tensor
    """Both (channels,); the variance is the unbiased one."""


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

    def seen(self, batch: Tensor) -> _Seen:
        """Return a batch (N, C, ...) whose mean and unbiased variance are the layer's running statistics."""
        return _Seen(batch.numel() // batch.shape[1], _mean_of(self.layer), _variance_of(self.layer))

    def add(self, seen: _Seen) -> None:
        """Add what the layer saw."""
        total = self.count + seen.count
        shift = seen.mean.to(self.mean) - self.mean
        self.mean += shift * (seen.count / total)
        self.squares += seen.variance.to(self.squares) * (seen.count - 1) + shift**2 * (self.count * seen.count / total)
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
    world: World = ALONE,
) -> Statistics:
    """Return the running statistics that `batches` give with the weights as they are; the model stays as it was.

    Each is the mean, or the unbiased variance, of all values that a layer sees. The layers normalise by each batch as
    in training; the rest of the network, such as dropout, is in evaluation mode and draws no random numbers. Layers
    that no batch reaches are left out.

    Args:
        model: in training mode; its layers in evaluation mode are frozen.
        batches: clips as in a validation, several videos each.
        most_clips: clips that the model sees at once, where a batch has more.
        world: the ranks that share the batches: each has every so many-th, and normalises it by itself.
    """
    populations = {name: _Population(layer) for name, layer in _moving_layers(model)}
    record = _Record(populations, world)
    with _watched(model, populations, record.note), norms_apart(model), torch.no_grad():
        for batch in batches:
            record.begin()
            for part in batch.parts(most_clips or len(batch.ids)):
                with autocast(precision, device):
                    model(part.clips)
    record.join()
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


class _Record:
    """Takes what layers see into their populations: at once, or of several ranks in the order of the batches."""

    def __init__(self, populations: Mapping[str, _Population], world: World) -> None:
        self._populations = populations
        self._world = world
        self._batches: list[list[tuple[str, int, Tensor, Tensor]]] = []

    def begin(self) -> None:
        """Begin a batch."""
        self._batches.append([])

    def note(self, name: str, inputs: Tensor) -> None:
        """Take what the layer `name` has just seen."""
        population = self._populations[name]
        seen = population.seen(inputs)
        if self._world.size == 1:
            population.add(seen)
        else:
            # Copied, since the layer writes over its own.
            mean, variance = (one.to("cpu", torch.float64, copy=True) for one in (seen.mean, seen.variance))
            self._batches[-1].append((name, seen.count, mean, variance))

    def join(self) -> None:
        """Add what all ranks have noted; so each has the populations that one rank would have."""
        if self._world.size > 1:
            for batch in dealt(self._world.gathered(self._batches)):
                for name, count, mean, variance in batch:
                    self._populations[name].add(_Seen(count, mean, variance))


@contextmanager
def _watched(
    model: nn.Module, populations: Mapping[str, _Population], note: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Have each layer note what it sees; put modes, buffers and momenta back afterwards."""
    modes = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        stack.callback(_set_modes, modes)
        model.eval()
        for name, population in populations.items():
            layer = population.layer
            kept = {name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)}
            stack.callback(_put_back, layer, kept, layer.momentum)
            layer.momentum = 1.0  # the running statistics become those of the last batch
            layer.train()
            handle = layer.register_forward_hook(partial(_noted, partial(note, name)))
            stack.callback(handle.remove)
        yield


def _noted(note: Callable[[Tensor], None], _: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
    note(*inputs)


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
