"""Activation checkpointing: parts of a model keep their inputs alone, and compute the rest again in the backward pass.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, section 4.1 (parts of about the square root
of the number of layers).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_FORWARD = "forward"


def set_checkpointing(model: nn.Module, on: bool) -> None:
    """Have the parts of `model` compute their activations again in the backward pass, or keep them as usual.

    The second computation draws the same random numbers and leaves all buffers, such as running statistics, as the
    first left them. Names in the state dict do not change.
    """
    most = _most_layers(model)
    for part in checkpointed_parts(model):
        own = vars(part).get(_FORWARD)
        if on and not isinstance(own, _Recomputed):
            part.forward = _Recomputed(part, part.forward, None if _layers(part) <= most else most)
        elif not on and isinstance(own, _Recomputed):
            del part.forward
            if not inspect.ismethod(own.forward):  # one that was put there before, such as a compiled one
                part.forward = own.forward


def wrap_forward(part: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Have a part compute by `wrap` of its forward pass; where activations are computed again, so is what it wraps."""
    own = vars(part).get(_FORWARD)
    if isinstance(own, _Recomputed):
        part.forward = replace(own, forward=wrap(own.forward))
    else:
        part.forward = wrap(part.forward)


def checkpointed_parts(model: nn.Module) -> list[nn.Module]:
    """Return the parts that are recomputed: blocks of a few of the model's layers each, and long chains of layers.

    A part must be called as a module. Blocks of which a model calls the methods, as the spatiotemporal multiplier
    networks do, keep their activations.
    """
    return list(_parts(model, _most_layers(model)))


def _most_layers(model: nn.Module) -> int:
    """Return the number of layers of a part, at most."""
    return max(2, math.ceil(math.sqrt(_layers(model))))


def _parts(module: nn.Module, most: int) -> Iterator[nn.Module]:
    for child in module.children():
        layers = _layers(child)
        if layers < 2:
            continue
        # Models may call the blocks of a container one by one, so that the container itself is not called.
        is_container = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        is_chain = isinstance(child, nn.Sequential) and all(_layers(link) < 2 for link in child)
        if is_chain or (layers <= most and not is_container):
            yield child
        else:
            yield from _parts(child, most)


def _layers(module: nn.Module) -> int:
    """Return the number of modules that have weights with more than one axis, such as convolutions."""
    return sum(any(p.ndim > 1 for p in found.parameters(recurse=False)) for found in module.modules())


@dataclass(frozen=True, slots=True)
class _Recomputed:
    """The forward pass of a part that keeps its inputs."""

    part: nn.Module
    forward: Callable[..., Any]
    most: int | None
    """Layers of a segment, where the part is a chain that is recomputed in segments."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*arguments, **named)
        if self.most is not None:
            assert isinstance(self.part, nn.Sequential)  # noqa: S101 - of a chain alone
            return _in_segments(self.part, self.most, *arguments)
        contexts = partial(_contexts, [self.part])
        return checkpoint(self.forward, *arguments, use_reentrant=False, context_fn=contexts, **named)


def _in_segments(whole: nn.Sequential, most: int, x: Tensor) -> Any:
    for links in _segments(whole, most):
        x = checkpoint(_run, links, x, use_reentrant=False, context_fn=partial(_contexts, links))
    return x


def _segments(whole: nn.Sequential, most: int) -> Iterator[list[nn.Module]]:
    """Yield the links of a chain in turn, up to `most` layers at once."""
    links: list[nn.Module] = []
    for link in whole:
        if sum(map(_layers, [*links, link])) > most:
            yield links
            links = []
        links.append(link)
    yield links


def _run(links: list[nn.Module], x: Tensor) -> Tensor:
    for link in links:
        x = link(x)
    return x


def _contexts(parts: list[nn.Module]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _buffers_kept(parts)


@contextmanager
def _buffers_kept(parts: list[nn.Module]) -> Iterator[None]:
    """Have the modules of `parts` change copies of their buffers during the block."""
    kept: list[tuple[nn.Module, str, Tensor]] = []
    try:
        for module in chain.from_iterable(part.modules() for part in parts):
            for name, buffer in list(module.named_buffers(recurse=False)):
                kept.append((module, name, buffer))
                module._buffers[name] = buffer.clone()
        yield
    finally:
        for module, name, buffer in kept:
            module._buffers[name] = buffer
