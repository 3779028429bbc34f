"""How long a model takes for its clips, on the device that it was trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from data.clips.loader import Clips

from .precision import Precision, autocast

LATENCY_METRICS: Final = ("latency_ms", "latency_p95_ms", "batch_latency_ms", "batch_latency_p95_ms")
_WARM_UP: Final = 3
"""Runs before the first that counts: kernels are chosen and memory is taken in them."""
_MOST, _FEWEST, _SECONDS = 50, 10, 2.0
"""Runs that count: as many as fit into the seconds, within these bounds."""


def latency(
    model: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    batch_size: int,
    most_clips: int,
    device: torch.device,
    precision: Precision,
    each: Callable[[], None],
) -> dict[str, float]:
    """Return `LATENCY_METRICS`: median and 95th percentile for one clip and for a batch, in milliseconds.

    From clips on the device to logits that are computed, in evaluation mode and the precision of the training; the
    model is left in the mode that it was in. No global generator is used.

    Args:
        shapes: of each input of one clip, (C, T, H, W).
        most_clips: clips that the model sees at once; a larger batch is computed in such parts.
        each: called before every run.
    """
    found: dict[str, float] = {}
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(precision, device):
            for prefix, count in (("", 1), ("batch_", batch_size)):
                parts = [_clips(shapes, size, device) for size in _sizes(count, most_clips)]
                times = list(_times(model, parts, device, each))
                found[f"{prefix}latency_ms"] = 1000 * float(np.median(times))
                found[f"{prefix}latency_p95_ms"] = 1000 * float(np.percentile(times, 95))
    finally:
        model.train(training)
    return found


def _times(model: nn.Module, parts: list[Clips], device: torch.device, each: Callable[[], None]) -> Iterator[float]:
    """Yield the seconds of each run that counts."""
    spent, runs = 0.0, 0
    while runs < _WARM_UP + _FEWEST or (runs < _WARM_UP + _MOST and spent < _SECONDS):
        each()
        _finish(device)
        began = time.perf_counter()
        for clips in parts:
            model(clips)
        _finish(device)
        seconds = time.perf_counter() - began
        runs += 1
        if runs > _WARM_UP:
            spent += seconds
            yield seconds


def _finish(device: torch.device) -> None:
    """Wait for what a GPU still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sizes(count: int, most: int) -> list[int]:
    return [min(most, count - start) for start in range(0, count, most)]


def _clips(shapes: Mapping[str, tuple[int, ...]], count: int, device: torch.device) -> Clips:
    draws = torch.Generator().manual_seed(0)
    inputs: list[Tensor] = [torch.randn(count, *shape, generator=draws).to(device) for shape in shapes.values()]
    return inputs[0] if len(inputs) == 1 else (inputs[0], inputs[1])
