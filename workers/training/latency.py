"""How long a model takes for its clips, on the device that it was trained on: in PyTorch, and as ONNX."""

from __future__ import annotations

import copy
import json
import platform
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from data.clips.batch import Clips

from ..errors import NotExportableError
from .fault_words import is_out_of_memory
from .precision import Precision, autocast
from .programs import OnnxProgram, quiet_exporters, random_arguments, reason, require_onnx_on, write_onnx
from .reproducibility import Runtime, describe

_IN_PYTORCH: Final = ("latency_ms", "latency_p95_ms", "batch_latency_ms", "batch_latency_p95_ms")
ONNX_LATENCY_METRICS: Final = tuple(f"onnx_{name}" for name in _IN_PYTORCH)
"""The same of the file that `hpo export --format onnx` writes, in ONNX Runtime."""
LATENCY_METRICS: Final = (*_IN_PYTORCH, *ONNX_LATENCY_METRICS)
_WARM_UP: Final = 3
"""Runs before the first that counts: kernels are chosen and memory is taken in them."""
_MOST, _FEWEST, _SECONDS = 50, 10, 2.0
"""Runs that count: as many as fit into the seconds, within these bounds."""


class RunLatency:
    """The latency of the model of a run, measured once on each device that the run is on."""

    def __init__(self, measures: Collection[str], runtime: Runtime, precision: Precision) -> None:
        """Begin without values; those of `measures` that are no latency are left out.

        Raises:
            SetupError: this machine lacks what a latency is measured with.
        """
        self.wanted: Final = frozenset(measures).intersection(LATENCY_METRICS)
        if not self.wanted.isdisjoint(ONNX_LATENCY_METRICS):
            require_onnx_on(runtime.device)
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
    runtime: Runtime,
    precision: Precision,
    each: Callable[[], None],
) -> dict[str, float]:
    """Return what of `LATENCY_METRICS` is wanted: median and 95th percentile of one clip and of a batch, in ms.

    From clips on the device to logits that are computed, in evaluation mode; in PyTorch in the precision of the
    training, as ONNX in fp32, as the file is. The model is left in the mode that it was in. No global generator is
    used. No more clips are on the device than the model sees at once.

    Args:
        shapes: of each input of one clip, (C, T, H, W).
        most_clips: clips that the model sees at once; a larger batch is computed in such parts.
        each: called before every run.

    Raises:
        NotExportableError: it is wanted as ONNX, and cannot be written so.
    """
    training = model.training
    model.eval()
    counts = {"": 1, "batch_": batch_size}
    device = runtime.device
    try:
        with torch.no_grad():
            found: dict[str, float] = {}
            if not set(_IN_PYTORCH).isdisjoint(wanted):
                with autocast(precision, device):
                    found |= _measured(model, "", counts, wanted, _Given(shapes, most_clips, device, each))
            if not set(ONNX_LATENCY_METRICS).isdisjoint(wanted):
                each()
                with tempfile.TemporaryDirectory(prefix="video-hpo-onnx-") as folder:
                    run, most = _as_onnx(model, shapes, Path(folder) / "model.onnx", runtime)
                    given = _Given(shapes, min(most or most_clips, most_clips), device, each)
                    found |= _measured(run, "onnx_", counts, wanted, given)
    finally:
        model.train(training)
    return found


@dataclass(frozen=True, slots=True)
class _Given:
    """What all measurements of a model have in common."""

    shapes: Mapping[str, tuple[int, ...]]
    most_clips: int
    device: torch.device
    each: Callable[[], None]


def _measured(
    run: Callable[[Clips], object], kind: str, counts: Mapping[str, int], wanted: Collection[str], given: _Given
) -> dict[str, float]:
    """Return what is wanted of the metrics whose names begin with `kind`."""
    counts = {prefix: count for prefix, count in counts.items() if not set(_of(kind + prefix)).isdisjoint(wanted)}
    clips = _clips(given.shapes, min(given.most_clips, max(counts.values())), given.device)
    found: dict[str, float] = {}
    for prefix, count in counts.items():
        parts = [_first(clips, size) for size in _sizes(count, given.most_clips)]
        times = list(_times(run, parts, given.device, given.each))
        values = (float(np.median(times)), float(np.percentile(times, 95)))
        found |= {name: 1000 * value for name, value in zip(_of(kind + prefix), values, strict=True)}
    return {name: value for name, value in found.items() if name in wanted}


def _as_onnx(
    model: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: Path, runtime: Runtime
) -> tuple[Callable[[Clips], Tensor], int | None]:
    """Return the model in ONNX Runtime, and how many clips it takes at once; None for any number."""
    module = model if runtime.device.type == "cpu" else copy.deepcopy(model).cpu()
    with quiet_exporters():
        try:
            most = _write(module, shapes, path)
        except Exception as error:  # tracing layers of anybody's can fail in any way
            if isinstance(error, OSError) or is_out_of_memory(error):
                raise
            raise NotExportableError(
                f"the model cannot be written as ONNX, of which the study names the latency: {reason(error)}"
            ) from error
        program = OnnxProgram(path, device=runtime.device, threads=runtime.threads)
    return lambda clips: program((clips,) if isinstance(clips, Tensor) else clips), most


def _write(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: Path) -> int | None:
    """Write a module for any number of clips, or where that cannot be traced for one; return that number."""
    try:
        write_onnx(module, random_arguments(shapes, 2), path, True)
    except Exception as error:  # the second try says what is wrong, if it is not the number of clips
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise
        write_onnx(module, random_arguments(shapes, 1), path, False)
        return 1
    return None


def _of(prefix: str) -> tuple[str, str]:
    """Return the names of median and percentile."""
    return f"{prefix}latency_ms", f"{prefix}latency_p95_ms"


def _times(
    run: Callable[[Clips], object], parts: list[Clips], device: torch.device, each: Callable[[], None]
) -> Iterator[float]:
    """Yield the seconds of each run that counts."""
    spent, runs = 0.0, 0
    while runs < _WARM_UP + _FEWEST or (runs < _WARM_UP + _MOST and spent < _SECONDS):
        each()
        _finish(device)
        began = time.perf_counter()
        for clips in parts:
            run(clips)
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
