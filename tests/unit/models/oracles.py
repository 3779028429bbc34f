"""Compare a model with an independent implementation, in float64 and far from initialisation."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

TOLERANCE = 1e-10


def pytorchvideo(module: str) -> ModuleType:
    """Return one of pytorchvideo's modules of models."""
    with warnings.catch_warnings():
        # It scripts two functions while it is imported; the class of the warning depends on torch.
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        return importlib.import_module(f"pytorchvideo.models.{module}")


def randomise(model: nn.Module, seed: int) -> None:
    """Move every parameter and batch-norm statistic away from its initial value.

    Zero-initialised scales would hide a whole residual branch, fresh statistics a wrong norm.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, 0.1, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)


class Undrawn(TorchFunctionMode):
    """Gives zeros where weights would be drawn: for models that are loaded whole.

    To draw tens of millions of weights, once by the layers and once by the model, takes longer than to load them. Zeros
    are in every range, so that draws which are repeated until they are in one end at once.
    """

    _DRAWS = frozenset({"normal_", "uniform_", "kaiming_uniform_"})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "") in self._DRAWS:
            drawn = given["tensor"] if "tensor" in given else args[0]
            drawn.detach().zero_()
            return drawn
        return func(*args, **given)


def random_clip(*shape: int, seed: int = 0) -> Tensor:
    """Return the same float64 clip (N, C, T, H, W) every time."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative_gap(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference relative to the largest value."""
    assert ours.shape == theirs.shape
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))


def assert_same_network(
    ours: nn.Module,
    theirs: nn.Module,
    clip: Tensor,
    their_input: Callable[[], object],
    names: Mapping[str, str],
    *,
    little_effect: tuple[str, ...] = (),
) -> None:
    """Check logits, gradients of one loss and running statistics after one training step.

    `names` maps every one of our state-dict names to theirs; both hold the same values already. Gradients of
    parameters whose names end in one of `little_effect` may be rounding alone: their gaps are relative to the largest
    gradient of all.
    """
    targets = torch.arange(clip.shape[0])
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        evaluated = relative_gap(ours(clip), theirs(their_input()))
    assert evaluated < TOLERANCE

    ours.train()
    theirs.train()
    our_logits, their_logits = ours(clip), theirs(their_input())
    assert relative_gap(our_logits, their_logits) < TOLERANCE
    F.cross_entropy(our_logits, targets).backward()
    F.cross_entropy(their_logits, targets).backward()

    our_state, their_state = ours.state_dict(), theirs.state_dict()
    assert {names[name] for name in our_state} == set(their_state)
    moved = [name for name in our_state if ".running_" in name]
    assert moved
    for name in moved:
        assert relative_gap(our_state[name], their_state[names[name]]) < TOLERANCE, name

    their_parameters = dict(theirs.named_parameters())
    largest = max(float(parameter.grad.abs().max()) for parameter in ours.parameters() if parameter.grad is not None)
    for name, parameter in ours.named_parameters():
        theirs_of = their_parameters[names[name]].grad
        assert parameter.grad is not None, name
        assert theirs_of is not None, name
        if name.endswith(little_effect):
            assert float((parameter.grad - theirs_of).abs().max()) < TOLERANCE * largest, name
            continue
        assert parameter.grad.abs().max() > 0, name
        assert relative_gap(parameter.grad, theirs_of) < TOLERANCE, name
