"""What makes two runs of one configuration equal: seeds, random states, thread count, deterministic kernels."""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

CompileMode = Literal["blocks", "graphs"]
"""`graphs` has a GPU repeat the kernels of a compiled block as one CUDA graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Where and how a run computes. On a CPU the numbers depend on `threads`: sums are split by them."""

    device: torch.device
    threads: int
    bf16: bool = False
    """Whether bf16 autocast may be used when the configuration says `auto`."""
    fp16: bool = False
    """The same of fp16."""
    deterministic: bool = False
    """On a GPU: deterministic cuDNN and cuBLAS kernels only, slower; a CPU always is."""
    memory_share: float = 1.0
    """The part of a GPU's memory that this process may take."""
    readers: int | None = None
    """Threads that read clips for a GPU; None for the default of the loader."""
    compile: CompileMode | None = None
    """Whether updates are computed by blocks that are compiled, and by CUDA graphs of these."""
    compile_cache: Path | None = None
    """The folder for what is compiled; None for the default of PyTorch."""


def prepare(runtime: Runtime) -> None:
    """Set the thread count and the kernel choice of this process.

    A CPU run uses deterministic algorithms only and fails where there is none. A GPU run tunes its convolutions
    (`cudnn.benchmark`), so two runs may differ in the last digits, unless `deterministic` is asked for; then the
    few operations without a deterministic kernel warn; `CUBLAS_WORKSPACE_CONFIG=:4096:8` must be set before.
    """
    torch.set_num_threads(runtime.threads)
    on_cpu = runtime.device.type == "cpu"
    torch.use_deterministic_algorithms(on_cpu or runtime.deterministic, warn_only=not on_cpu)
    # Filling fresh memory with NaN finds bugs in PyTorch, costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # set at run time
    torch.backends.cudnn.deterministic = runtime.deterministic
    torch.backends.cudnn.benchmark = not on_cpu and not runtime.deterministic
    if not on_cpu:
        limit_gpu_memory(runtime.device, runtime.memory_share)


def limit_gpu_memory(device: torch.device, share: float) -> None:
    """Have this process take `share` of the memory of a GPU at most."""
    # This function of PyTorch refuses a device without a number, which stands for the current one elsewhere.
    torch.cuda.set_per_process_memory_fraction(share, device.index)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (CPU and every GPU)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every global generator, `device` included, in a form that `weights_only=True` loads."""
    kind, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [kind, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore every global generator to the state that :func:`random_state` returned."""
    kind, words, gauss = state["python"]
    random.setstate((kind, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def describe(runtime: Runtime, *, precision: str) -> dict[str, Any]:
    """Return a description of this process for the trial's record: what an export needs to repeat the run."""
    found: dict[str, Any] = {
        "video_hpo": version("video-hpo"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "device": runtime.device.type,
        "threads": runtime.threads,
        "precision": precision,
        "deterministic": runtime.device.type == "cpu" or runtime.deterministic,
    }
    if runtime.device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(runtime.device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found
