"""How long a model takes for its clips, on the device that it was trained on."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from data.clips.loader import Clips

from .precision import Precision, autocast
from .reproducibility import Runtime, describe

LATENCY_METRICS: Final = ("latency_ms", "latency_p95_ms", "batch_latency_ms", "batch_latency_p95_ms")
_WARM_UP: Final = 3
"""Runs before the first that counts: kernels are chosen and memory is taken in them."""
_MOST, _FEWEST, _SECONDS = 50, 10, 2.0
"""Runs that count: as many as fit into the seconds, within these bounds."""


class RunLatency:
    """The latency of the model of a run, measured once on each device that the run is on."""

    def __init__(self, measures: Collection[str], runtime: Runtime, precision: Precision) -> None:
        """Begin without values; those of `measures` that are no latency are left out."""
        self.wanted: Final = frozenset(measures).intersection(LATENCY_METRICS)
        self.values: dict[str, float] = {}
        self._device = json.dumps({**describe(runtime, precision=precision), "host": platform.node()}, default=str)

    @property
    def is_due(self) -> bool:
        """Whether something is wanted that is not known."""
        return not self.wanted <= set(self.values)

    def state(self) -> dict[str, Any]:
        """Return the values, and where they were measured, as plain values."""
        return {"device": self._device, "values": dict(self.values)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the values of :meth:`state`, if they are of this device."""
        if state["device"] == self._device:
            self.values = {name: value for name, value in state["values"].items() if name in self.wanted}


def latency(
    model: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    wanted: Collection[str] = LATENCY_METRICS,
    batch_size: int,
    most_clips: int,
    device: torch.device,
    precision: Precision,
    each: Callable[[], None],
) -> dict[str, float]:
    """Return what of `LATENCY_METRICS` is wanted: median and 95th percentile of one clip and of a batch, in ms.

    From clips on the device to logits that are computed, in evaluation mode and the precision of the training; the
    model is left in the mode that it was in. No global generator is used. No more clips are on the device than the
    model sees at once.

    Args:
        shapes: of each input of one clip, (C, T, H, W).
        most_clips: clips that the model sees at once; a larger batch is computed in such parts.
        each: called before every run.
    """
    found: dict[str, float] = {}
    counts = {
        prefix: count for prefix, count in (("", 1), ("batch_", batch_size)) if not set(_of(prefix)).isdisjoint(wanted)
    }
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(precision, device):
            clips = _clips(shapes, min(most_clips, max(counts.values(), default=1)), device)
            for prefix, count in counts.items():
                parts = [_first(clips, size) for size in _sizes(count, most_clips)]
                times = list(_times(model, parts, device, each))
                values = (float(np.median(times)), float(np.percentile(times, 95)))
                found |= {name: 1000 * value for name, value in zip(_of(prefix), values, strict=True)}
    finally:
        model.train(training)
    return {name: value for name, value in found.items() if name in wanted}


def _of(prefix: str) -> tuple[str, str]:
    """Return the names of median and percentile."""
    return f"{prefix}latency_ms", f"{prefix}latency_p95_ms"


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


def _first(clips: Clips, count: int) -> Clips:
    return clips[:count] if isinstance(clips, Tensor) else (clips[0][:count], clips[1][:count])


def _clips(shapes: Mapping[str, tuple[int, ...]], count: int, device: torch.device) -> Clips:
    draws = torch.Generator().manual_seed(0)
    inputs: list[Tensor] = [torch.randn(count, *shape, generator=draws).to(device) for shape in shapes.values()]
    return inputs[0] if len(inputs) == 1 else (inputs[0], inputs[1])
