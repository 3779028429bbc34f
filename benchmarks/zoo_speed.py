"""Compare training steps with those of other libraries' models: `python benchmarks/zoo_speed.py`.

SlowFast is compared with pytorchvideo's, the others with torchvision's, of the same shape and number of parameters. A
step is forward, cross-entropy, backward and SGD with momentum on a batch in memory. The contestants of a model take
turns, and a ratio is that of two steps of one turn, so that other load on the machine affects both alike; on a CPU,
seconds are those of one core. Asserts nothing about speed.

    python benchmarks/zoo_speed.py [MODEL ...] [--turns 7] [--variants same,defaults,...] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpo.spec import TrainingConfig
from models import create_model
from workers.training.compiled import CompiledBlocks
from workers.training.recipe import make_optimizer

CLASSES = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A batch of clips."""

    clips: int
    frames: int
    size: int

    def __str__(self) -> str:
        return f"{self.clips} x {self.frames} x {self.size}²"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The settings of a contestant."""

    ours: bool = True
    our_optimizer: bool = False
    channels_last: bool = False
    compiled: bool = False
    blocks: bool = False
    """Whether each block is compiled by itself, as `hpo-worker --compile blocks` does."""


# Shapes that are small enough for a CPU; GPUs get the published clips.
CPU_SHAPES = {
    "slowfast_r50_4x16": Shape(clips=2, frames=32, size=112),
    "r2plus1d_18": Shape(clips=2, frames=8, size=112),
    "r3d_18": Shape(clips=2, frames=8, size=112),
    "s3d": Shape(clips=2, frames=16, size=112),
}
GPU_SHAPES = {
    "slowfast_r50_4x16": Shape(clips=16, frames=32, size=224),
    "r2plus1d_18": Shape(clips=16, frames=16, size=112),
    "r3d_18": Shape(clips=16, frames=16, size=112),
    "s3d": Shape(clips=8, frames=64, size=224),
}
VARIANTS = {
    "peer": Variant(ours=False),
    "same": Variant(),
    "defaults": Variant(our_optimizer=True),
    "channels_last": Variant(our_optimizer=True, channels_last=True),
    "compiled": Variant(our_optimizer=True, compiled=True),
    "blocks": Variant(our_optimizer=True, blocks=True),
    "channels_last+compiled": Variant(our_optimizer=True, channels_last=True, compiled=True),
    "peer+channels_last": Variant(ours=False, channels_last=True),
    "peer+compiled": Variant(ours=False, compiled=True),
}
# Compiling for a CPU takes many minutes; a GPU tries everything.
ON_CPU = ("peer", "same", "defaults", "channels_last", "peer+channels_last")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The results of one contestant: the seconds of a step in each turn."""

    model: str
    shape: str
    device: str
    precision: str
    variant: str
    clips: int
    seconds: list[float]
    ratios: list[float]
    """Speed relative to the peer's in the same turn."""


def main() -> None:
    """Measure, print Markdown, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(CPU_SHAPES)}; all without a name")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--variants", default=None, help=f"with commas, of {', '.join(VARIANTS)}")
    parser.add_argument("--size", type=int, default=None, help="pixels a side instead of each model's")
    parser.add_argument("--json", type=Path, default=None, help="file to write every second to")
    options = parser.parse_args()
    models = options.models or list(CPU_SHAPES)
    wanted = options.variants.split(",") if options.variants else None
    if unknown := [*(set(models) - set(CPU_SHAPES)), *(set(wanted or ()) - set(VARIANTS))]:
        parser.error(f"not known: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    print(f"{_machine()}; torch {torch.__version__}", flush=True)
    rows: list[Row] = []
    for device, precision in _settings():
        names = ["peer", *(name for name in wanted or (ON_CPU if device.type == "cpu" else VARIANTS) if name != "peer")]
        print(header(device, precision), flush=True)
        for model in models:
            shape = (CPU_SHAPES if device.type == "cpu" else GPU_SHAPES)[model]
            shape = shape if options.size is None else Shape(clips=shape.clips, frames=shape.frames, size=options.size)
            measured = measure(model, shape, names, device=device, precision=precision, turns=options.turns)
            print("\n".join(map(line, measured)), flush=True)
            rows += measured
    if options.json is not None:
        found = {"machine": _machine(), "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _settings() -> list[tuple[torch.device, str]]:
    gpu = [(torch.device("cuda"), precision) for precision in ("fp32", "bf16")] if torch.cuda.is_available() else []
    return [(torch.device("cpu"), "fp32"), *gpu]


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores{gpu}"


def measure(
    model: str, shape: Shape, names: list[str], *, device: torch.device, precision: str, turns: int
) -> list[Row]:
    """Return the rows of the contestants of one model, which take turns after a first turn that does not count."""
    steps = {name: training_step(model, shape, VARIANTS[name], device, precision) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns + 1):
        # The order rotates, so that no contestant is always first.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken = _time(steps[name], device)
            if turn:
                seconds[name].append(taken)
    return [
        Row(
            model=model,
            shape=str(shape),
            device=device.type,
            precision=precision,
            variant=name,
            clips=shape.clips,
            seconds=seconds[name],
            ratios=[peer / own for peer, own in zip(seconds["peer"], seconds[name], strict=True)],
        )
        for name in names
    ]


def _time(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cpu":
        started = time.process_time()
        step()
        return time.process_time() - started
    torch.cuda.synchronize()
    wall = time.perf_counter()
    for _ in range(10):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - wall) / 10


def training_step(
    model: str, shape: Shape, variant: Variant, device: torch.device, precision: str
) -> Callable[[], None]:
    """Return a function that trains a contestant on one batch."""
    net = (create_model(model, num_classes=CLASSES) if variant.ours else _peer(model, shape)).to(device).train()
    clips = torch.randn(shape.clips, 3, shape.frames, shape.size, shape.size, device=device)
    if variant.channels_last:
        net = net.to(memory_format=torch.channels_last_3d)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
    optimizer = _optimizer(net, variant)
    labels = torch.arange(shape.clips, device=device)
    run = torch.compile(net) if variant.compiled else net

    def update() -> None:
        context = torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
        with context:
            loss = F.cross_entropy(run(clips).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return _in_blocks(net, update, shape.clips, device) if variant.blocks else update


def _in_blocks(net: nn.Module, update: Callable[[], None], clips: int, device: torch.device) -> Callable[[], None]:
    """Return an update with compiled blocks; exit if they cannot be compiled."""
    blocks = CompiledBlocks(net, "blocks", device=device, seconds=math.inf)

    def counted() -> int:
        update()
        return clips

    began = time.perf_counter()
    blocks.begin(counted)
    if blocks.problem is not None:
        sys.exit(f"blocks cannot be compiled: {blocks.problem}")
    print(f"compiled {blocks.graphs} kinds of blocks in {time.perf_counter() - began:.0f} s", flush=True)

    def step() -> None:
        with blocks.in_use(clips):
            update()

    return step


def _optimizer(net: nn.Module, variant: Variant) -> torch.optim.Optimizer:
    config = TrainingConfig(lr=1e-3, momentum=0.9, weight_decay=1e-4)
    if variant.our_optimizer:
        return make_optimizer([{"params": list(net.parameters()), "weight_decay": config.weight_decay}], config)
    return torch.optim.SGD(net.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def _peer(model: str, shape: Shape) -> nn.Module:
    """Return the model of the other library; exit if it has another number of parameters."""
    peer = _slowfast(shape) if model == "slowfast_r50_4x16" else _torchvision(model, shape)
    ours = create_model(model, num_classes=CLASSES)
    sizes = [sum(parameter.numel() for parameter in net.parameters()) for net in (peer, ours)]
    if sizes[0] != sizes[1]:
        sys.exit(f"{model}: the peer has {sizes[0]} parameters, ours has {sizes[1]}")
    return peer


def _torchvision(model: str, shape: Shape) -> nn.Module:
    video = importlib.import_module("torchvision.models.video")
    net: nn.Module = getattr(video, model)(num_classes=CLASSES)
    if model == "s3d":
        # It was written for 224 pixels; smaller images need a smaller averaging window.
        last = -(-shape.size // 16) // 2
        net.avgpool = nn.AvgPool3d((2, last, last), stride=1)
    return net


class _TwoPaths(nn.Module):
    """pytorchvideo's SlowFast behind the input of ours."""

    def __init__(self, net: nn.Module, index: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("index", index)

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.net([clips.index_select(2, self.get_buffer("index")), clips])
        return logits


def _slowfast(shape: Shape) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it scripts two functions while it is imported
        library = importlib.import_module("pytorchvideo.models.slowfast")
    last = -(-shape.size // 32)
    net = library.create_slowfast(
        slowfast_channel_reduction_ratio=(8,),
        slowfast_conv_channel_fusion_ratio=2,
        slowfast_fusion_conv_kernel_size=(5, 1, 1),
        slowfast_fusion_conv_stride=(8, 1, 1),
        model_num_class=CLASSES,
        dropout_rate=0.5,
        head_pool_kernel_sizes=((shape.frames // 8, last, last), (shape.frames, last, last)),
    )
    return _TwoPaths(net, torch.linspace(0, shape.frames - 1, shape.frames // 8).long())


def header(device: torch.device, precision: str) -> str:
    """Return the header of a Markdown table."""
    unit = "clips / CPU s" if device.type == "cpu" else "clips / s"
    columns = f"| model | clips | contestant | {unit} | x peer (least to most) |"
    return f"\n{device.type}, {precision}\n\n{columns}\n| --- | --- | --- | --- | --- |"


def line(row: Row) -> str:
    """Return clips per second of a contestant, and its ratio to the peer, as a line of the table."""
    ratio = f"{statistics.median(row.ratios):.2f} ({min(row.ratios):.2f} to {max(row.ratios):.2f})"
    speed = row.clips / statistics.median(row.seconds)
    return f"| {row.model} | {row.shape} | {row.variant} | {speed:.2f} | {ratio} |"


if __name__ == "__main__":
    main()
