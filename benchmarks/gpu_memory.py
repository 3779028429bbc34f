"""Measure updates on a GPU by plans of memory, and check there what docs/memory.md says.

One line of JSON for each network, precision and plan: seconds of an update, its peak of memory, and how far its
gradients are from those of the whole batch, all norms frozen. Then one for each limit, a part of what the whole batch
takes: the plan that is chosen under it, and its peak. Ends with status 1 if a check fails.

    python -m benchmarks.gpu_memory [MODEL ...] [--device cuda] [--updates 5] > memory.jsonl

With `--device cpu` the networks and the clips are tiny and there are no limits: that tests this program.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

import torch

from data import ClipBatch
from hpo.spec import TrainingConfig
from models import VideoModel, create_model, model_info
from workers.training.checkpointing import set_checkpointing
from workers.training.failure import ran_out_of_memory
from workers.training.memory import DeviceMemory, GpuMemory, MainMemory
from workers.training.memory_plan import FEWEST_CLIPS_OF_NORMS, MemoryPlan, first_fitting
from workers.training.precision import Precision
from workers.training.recipe import Recipe
from workers.training.reproducibility import limit_gpu_memory
from workers.training.step import TrainingStep

CLASSES: Final = 101
MODELS: Final = ("slowfast_r50_4x16", "r3d_18", "r2plus1d_18", "x3d_s", "mvit_v2_s", "resnet50")
LIMITS: Final = (0.7, 0.4, 0.15)
"""Parts of what the whole batch takes."""
MOST_ERROR: Final = {"fp32": 5e-3, "bf16": 5e-2}
"""Of gradients, relative to the length of those of the whole batch; TF32 has 10 bits and bf16 has 8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A batch of clips."""

    clips: int
    frames: int
    size: int


GPU_SHAPE: Final = Shape(clips=32, frames=16, size=224)
CPU_SHAPE: Final = Shape(clips=4, frames=8, size=32)
_TINY: Final = {"width": 8, "head_width": 8, "table_frames": 8, "table_size": 32, "beta_inv": 2}


class Bench:
    """One network, its batch, and the memory of its device."""

    def __init__(self, model: str, *, device: torch.device, precision: Precision) -> None:
        """Build them; on a CPU, tiny."""
        on_cpu = device.type == "cpu"
        self.shape = shape = CPU_SHAPE if on_cpu else GPU_SHAPE
        known = model_info(model).defaults()
        options: dict[str, Any] = {key: value for key, value in _TINY.items() if on_cpu and key in known}
        torch.manual_seed(0)
        self.net: VideoModel = create_model(model, num_classes=CLASSES, dropout=0.0, **options).to(device)
        self.memory: DeviceMemory = MainMemory() if on_cpu else GpuMemory(device)
        clips = torch.randn(shape.clips, 3, shape.frames, shape.size, shape.size, device=device)
        labels = torch.arange(shape.clips, device=device) % CLASSES
        self.batch = ClipBatch(clips=clips, labels=labels, ids=tuple(map(str, range(shape.clips))))
        config = TrainingConfig(model=model, batch_size=shape.clips, lr=1e-6, grad_clip_norm=None)
        recipe = Recipe(self.net, config, total_steps=1000)
        self.step = TrainingStep(
            model=self.net, recipe=recipe, config=config, precision=precision, device=torch.device(device)
        )
        self.whole = MemoryPlan.whole(shape.clips, evaluation_batch=shape.clips, card=self.memory.card)

    def gradients(self, plan: MemoryPlan) -> torch.Tensor:
        """Return the gradients of a plan as one vector, with all layers in evaluation mode."""
        set_checkpointing(self.net, plan.checkpointing)
        self.net.eval()
        self.step.differentiate(self.batch, micro_batch=plan.micro_batch)
        found = [p.grad.flatten().double().cpu() for p in self.net.parameters() if p.grad is not None]
        self.step.forget()
        return torch.cat(found)

    def updates(self, plan: MemoryPlan, count: int) -> tuple[float, int]:
        """Return the seconds of an update of a plan and its peak in bytes, after one that does not count."""
        set_checkpointing(self.net, plan.checkpointing)
        self.net.train()
        self.step.update(self.batch, number=0, micro_batch=plan.micro_batch)
        self.memory.clear()
        _wait(self.step.device)
        started = time.perf_counter()
        for number in range(count):
            self.step.update(self.batch, number=1 + number, micro_batch=plan.micro_batch)
        _wait(self.step.device)
        return (time.perf_counter() - started) / count, self.memory.peak_bytes()

    def tried(self, plan: MemoryPlan) -> int | None:
        """Return the peak of two updates in bytes; None if they do not fit."""
        self.step.forget()
        self.memory.clear()
        try:
            with self.memory.margin():
                return self.updates(plan, 1)[1]
        except Exception as error:  # of many classes, when memory runs out; all others are raised again
            if not ran_out_of_memory(error, self.step.device):
                raise
        return None


def measured(bench: Bench, updates: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each plan."""
    half = bench.shape.clips // 2
    parts = (bench.whole, replace(bench.whole, micro_batch=half))
    plans = [*parts, *(replace(plan, checkpointing=True) for plan in parts)]
    expected = bench.gradients(bench.whole)
    # All of them before the first update, which moves the weights and the statistics.
    errors = [float((bench.gradients(plan) - expected).norm() / expected.norm()) for plan in plans]
    for plan, error in zip(plans, errors, strict=True):
        seconds, peak = bench.updates(plan, updates)
        yield {
            "micro_batch": plan.micro_batch,
            "checkpointing": plan.checkpointing,
            "seconds": round(seconds, 4),
            "clips_per_second": round(bench.shape.clips / seconds, 2),
            "peak_gib": round(peak / 2**30, 3),
            "gradient_error": error,
            "right": error <= MOST_ERROR[bench.step.precision],
        }


def limited(bench: Bench, whole_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each limit of a GPU: what is chosen there stays within it."""
    total = torch.cuda.mem_get_info(bench.step.device)[1]
    for part in LIMITS:
        share = part * whole_bytes / total
        bench.memory = GpuMemory(bench.step.device, share=share)
        limit_gpu_memory(bench.step.device, share)
        plan = first_fitting(bench.whole.for_updates(FEWEST_CLIPS_OF_NORMS), bench.tried)
        peak = None if plan is None else plan.peak_bytes
        yield {
            "limit_gib": round(part * whole_bytes / 2**30, 3),
            "plan": None if plan is None else {"micro_batch": plan.micro_batch, "checkpointing": plan.checkpointing},
            "peak_gib": None if peak is None else round(peak / 2**30, 3),
            "right": peak is None or peak <= share * total,
        }
    limit_gpu_memory(bench.step.device, 1.0)


def rows(models: list[str], *, device: torch.device, updates: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of all networks and precisions of a device."""
    precisions: tuple[Precision, ...] = ("fp32",) if device.type == "cpu" else ("fp32", "bf16")
    for model in models:
        for precision in precisions:
            bench = Bench(model, device=device, precision=precision)
            about = {"model": model, "device": device.type, "precision": precision, "clips": bench.shape.clips}
            whole_bytes = 0
            for row in measured(bench, updates):
                whole_bytes = whole_bytes or round(row["peak_gib"] * 2**30)
                yield {**about, **row}
            if device.type == "cuda":
                for row in limited(bench, whole_bytes):
                    yield {**about, **row}
            del bench


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Print the rows; end with status 1 if one of them is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"without a name: {', '.join(MODELS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--updates", type=int, default=5)
    options = parser.parse_args()
    wrong = 0
    for row in rows(options.models or list(MODELS), device=torch.device(options.device), updates=options.updates):
        print(json.dumps(row), flush=True)
        wrong += not row["right"]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
